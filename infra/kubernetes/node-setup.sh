# Runs in a node's own mount namespace: sh -s -- FOLDER OWNER
# Makes FOLDER/models on the node's local NVMe disks, all of them as one, where the cloud leaves them raw (Azure). Where the
# cloud has set them up already (EKS) or there are none, it only makes the folder. Run again, it changes nothing.
set -eu
folder=$1
owner=$2
sys=${PENSTOCK_SYS:-/sys}

# Local disks of Azure say so in their model. One with partitions is the system's.
raw_disks() {
  for block in "$sys"/block/nvme*; do
    [ -e "$block/device/model" ] || continue
    grep -q "NVMe Direct Disk" "$block/device/model" || continue
    name=${block##*/}
    [ -e "$block/${name}p1" ] && continue
    echo "/dev/$name"
  done
}

file_system() {
  # After a restart of the node the disks still hold what they held.
  mdadm --assemble --scan >/dev/null 2>&1 || true
  device=$(blkid -L penstock || true)
  if [ -z "$device" ]; then
    if [ $# -eq 1 ]; then
      device=$1
    else
      device=/dev/md/penstock
      mdadm --create "$device" --level=0 --run --raid-devices=$# "$@" >&2
    fi
    mkfs.ext4 -q -m 0 -L penstock "$device" >&2
  fi
  echo "$device"
}

mkdir -p "$folder"
disks=$(raw_disks)
if [ -n "$disks" ] && ! mountpoint -q "$folder"; then
  # One word per disk.
  # shellcheck disable=SC2086
  device=$(file_system $disks)
  mount -o noatime "$device" "$folder"
fi
mkdir -p "$folder/models"
chown "$owner:$owner" "$folder/models"
chmod 750 "$folder/models"
echo "$folder/models is ready"
