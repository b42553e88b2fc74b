import { spawnSync } from "node:child_process";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { temporaryFolder } from "../support/folders.ts";

const script = fileURLToPath(new URL("../../infra/kubernetes/node-setup.sh", import.meta.url));
const direct = "Microsoft NVMe Direct Disk v2";

interface Disk {
  readonly name: string;
  readonly model: string;
  readonly partitioned?: boolean;
}

interface Situation {
  readonly disks?: readonly Disk[];
  /** What `blkid -L penstock` finds. */
  readonly labelled?: string;
  readonly mounted?: boolean;
  readonly failing?: string;
}

/** Runs the script on a made-up node: its disks are folders, its tools write down how they were called. */
async function setUp({ disks = [], labelled = "", mounted = false, failing = "" }: Situation) {
  await using folder = await temporaryFolder();
  const [tools, sys, target, calls] = ["tools", "sys", "target", "calls"].map((name) => join(folder.path, name));
  if (tools === undefined || sys === undefined || target === undefined || calls === undefined) throw new Error("paths");
  await mkdir(tools);
  for (const disk of disks) {
    const block = join(sys, "block", disk.name);
    await mkdir(join(block, "device"), { recursive: true });
    await writeFile(join(block, "device/model"), `${disk.model}\n`);
    if (disk.partitioned === true) await mkdir(join(block, `${disk.name}p1`));
  }
  const answers: Record<string, string> = {
    blkid: labelled === "" ? "exit 2" : `echo ${labelled}`,
    mountpoint: `exit ${mounted ? 0 : 1}`,
  };
  for (const tool of ["mdadm", "mkfs.ext4", "mount", "chown", "blkid", "mountpoint"]) {
    const body = tool === failing ? "exit 1" : (answers[tool] ?? "exit 0");
    await writeFile(join(tools, tool), `#!/bin/sh\necho "${tool} $*" >> ${calls}\n${body}\n`);
    await chmod(join(tools, tool), 0o755);
  }
  const ran = spawnSync("sh", ["-s", "--", target, "1000"], {
    input: await readFile(script),
    env: { PATH: `${tools}:/usr/bin:/bin`, PENSTOCK_SYS: sys },
    encoding: "utf8",
  });
  const made = await readFile(calls, "utf8").catch(() => "");
  return {
    status: ran.status,
    output: ran.stdout.replaceAll(target, "TARGET").trim(),
    calls: made
      .replaceAll(target, "TARGET")
      .split("\n")
      .filter((line) => /^(mdadm --create|mkfs|mount |chown)/.test(line)),
  };
}

const owned = "chown 1000:1000 TARGET/models";

describe("a node's disks", () => {
  it("are left alone where there are none, or where the cloud has set them up", async () => {
    expect(await setUp({})).toEqual({ status: 0, output: "TARGET/models is ready", calls: [owned] });
    const ofAws = await setUp({ disks: [{ name: "nvme1n1", model: "Amazon EC2 NVMe Instance Storage" }] });
    expect(ofAws.calls).toEqual([owned]);
  });

  it("become one where there are several", async () => {
    const disks = ["nvme0n1", "nvme1n1", "nvme2n1"].map((name) => ({ name, model: direct }));
    expect((await setUp({ disks })).calls).toEqual([
      "mdadm --create /dev/md/penstock --level=0 --run --raid-devices=3 /dev/nvme0n1 /dev/nvme1n1 /dev/nvme2n1",
      "mkfs.ext4 -q -m 0 -L penstock /dev/md/penstock",
      "mount -o noatime /dev/md/penstock TARGET",
      owned,
    ]);
  });

  it("are used as they are where there is one", async () => {
    expect((await setUp({ disks: [{ name: "nvme0n1", model: direct }] })).calls).toEqual([
      "mkfs.ext4 -q -m 0 -L penstock /dev/nvme0n1",
      "mount -o noatime /dev/nvme0n1 TARGET",
      owned,
    ]);
  });

  it("keep what they held before a restart of the node", async () => {
    const disks = [{ name: "nvme0n1", model: direct }];
    expect((await setUp({ disks, labelled: "/dev/md127" })).calls).toEqual([
      "mount -o noatime /dev/md127 TARGET",
      owned,
    ]);
  });

  it("are not touched again once they are mounted", async () => {
    expect((await setUp({ disks: [{ name: "nvme0n1", model: direct }], mounted: true })).calls).toEqual([owned]);
  });

  it("of the system are never formatted", async () => {
    const disks = [
      { name: "nvme0n1", model: direct, partitioned: true },
      { name: "nvme1n1", model: "MSFT NVMe Accelerator v1.0" },
    ];
    expect((await setUp({ disks })).calls).toEqual([owned]);
  });

  it("that cannot be set up keep the folder away, and so the replicas", async () => {
    const disks = [{ name: "nvme0n1", model: direct }];
    for (const failing of ["mkfs.ext4", "mount"]) {
      const { status, output } = await setUp({ disks, failing });
      expect(status).not.toBe(0);
      expect(output).toBe("");
    }
  });
});
