/**
 * The rules of `account.ts` as Lua, each one round trip and atomic. Keys, all with the account as their hash tag:
 * 1 levels (hash: rate -> "used at", budget -> "spent end"), 2 open reservations (zset by expiry), 3 their budgets
 * (hash: id -> "name end amount ..."), 4 settled ids (zset by when to forget them).
 * Arguments of a charge: kind, name, limit, amount, then window or the three period ends around now, filled with 0.
 * Names of meters have no spaces.
 */
const common = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function put(name, a, b) redis.call('HSET', KEYS[1], name, string.format('%.17g %.17g', a, b)) end
local function pair(name)
  local text = redis.call('HGET', KEYS[1], name)
  if not text then return nil end
  local a, b = string.match(text, '(%S+) (%S+)')
  return tonumber(a), tonumber(b)
end
local function rate(charge)
  local used, at = pair(charge.name)
  if not used then return 0 end
  return math.max(0, used - math.max(0, now - at) * charge.limit / charge.window)
end
local function budget(charge)
  local spent, ends = pair(charge.name)
  if spent and ends > now then return spent, ends end
  for _, each in ipairs(charge.ends) do if each > now then return 0, each end end
  return 0, charge.ends[#charge.ends]
end
local function charges_from(first)
  local charges = {}
  for i = first, #ARGV - 6, 7 do
    charges[#charges + 1] = { kind = ARGV[i], name = ARGV[i + 1], limit = tonumber(ARGV[i + 2]),
      amount = tonumber(ARGV[i + 3]), window = tonumber(ARGV[i + 4]),
      ends = { tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6]) } }
  end
  return charges
end
local function give_back(id)
  local record = redis.call('HGET', KEYS[3], id)
  if not record then return end
  redis.call('HDEL', KEYS[3], id)
  for name, ends, amount in string.gmatch(record, '(%S+) (%S+) (%S+)') do
    local spent, current = pair(name)
    if spent and current == tonumber(ends) then put(name, spent - tonumber(amount), current) end
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)) do
  redis.call('ZREM', KEYS[2], id)
  give_back(id)
end
`;

/** Levels outlive the longest period, then a tenant that is gone leaves nothing. */
const keepLevelsMs = 40 * 86_400_000;

/** Arguments: id, ttl, charges. Answers granted, refused by, retry after (-1: never), then remaining and reset each. */
export const reserveScript = `${common}
local id, ttl = ARGV[1], tonumber(ARGV[2])
local charges = charges_from(3)
local refused, longest = -1, -1
if not redis.call('ZSCORE', KEYS[2], id) and not redis.call('ZSCORE', KEYS[4], id) then
  for i, charge in ipairs(charges) do
    local wait = -1
    if charge.kind == 'rate' then
      local over = rate(charge) + charge.amount - charge.limit
      if over > 1e-6 then wait = over * charge.window / charge.limit end
    elseif charge.kind == 'budget' then
      local spent, ends = budget(charge)
      if spent + charge.amount > charge.limit then wait = ends - now end
    elseif redis.call('ZCARD', KEYS[2]) >= charge.limit then
      wait = 0
    end
    if wait >= 0 and charge.kind ~= 'concurrency' and charge.amount > charge.limit then wait = math.huge end
    if wait > longest then refused, longest = i - 1, wait end
  end
  if refused < 0 then
    local record = {}
    for _, charge in ipairs(charges) do
      if charge.kind == 'rate' then
        put(charge.name, rate(charge) + charge.amount, now)
      elseif charge.kind == 'budget' then
        local spent, ends = budget(charge)
        put(charge.name, spent + charge.amount, ends)
        record[#record + 1] = string.format('%s %.17g %.17g', charge.name, ends, charge.amount)
      end
    end
    redis.call('ZADD', KEYS[2], now + ttl, id)
    if #record > 0 then redis.call('HSET', KEYS[3], id, table.concat(record, ' ')) end
    redis.call('PEXPIRE', KEYS[1], ${keepLevelsMs})
    redis.call('PEXPIRE', KEYS[2], ${keepLevelsMs})
    redis.call('PEXPIRE', KEYS[3], ${keepLevelsMs})
  end
end
local answer = { refused < 0 and 1 or 0, refused, longest == math.huge and -1 or math.ceil(longest) }
for _, charge in ipairs(charges) do
  local used, reset = 0, 0
  if charge.kind == 'rate' then
    used = rate(charge)
    reset = used * charge.window / charge.limit
  elseif charge.kind == 'budget' then
    local ends
    used, ends = budget(charge)
    reset = ends - now
  else
    used = redis.call('ZCARD', KEYS[2])
  end
  answer[#answer + 1] = math.floor(charge.limit - used + 1e-6)
  answer[#answer + 1] = math.ceil(reset)
end
return answer`;

/** Arguments: id, how long it is remembered, number of charges, the amount used of each, charges. */
export const settleScript = `${common}
local id, remember, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if redis.call('ZSCORE', KEYS[4], id) then return 0 end
local open = redis.call('ZREM', KEYS[2], id) == 1
give_back(id)
redis.call('ZADD', KEYS[4], now + remember, id)
redis.call('PEXPIRE', KEYS[4], remember)
for i, charge in ipairs(charges_from(4 + count)) do
  local used = tonumber(ARGV[3 + i])
  if charge.kind == 'rate' then
    local difference = used - charge.amount
    if not open then difference = math.max(0, difference) end
    put(charge.name, math.max(0, rate(charge) + difference), now)
  elseif charge.kind == 'budget' then
    local spent, ends = budget(charge)
    put(charge.name, spent + used, ends)
  end
end
redis.call('PEXPIRE', KEYS[1], ${keepLevelsMs})
return 1`;

/** Key 1: open reservations of an account. Arguments: ttl, ids. */
export const renewScript = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', now + tonumber(ARGV[1]), ARGV[i]) end
return 1`;

/** Key 1: the lease. Arguments: holder, ttl. Answers its holder and the ms that are left. */
export const acquireScript = `
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return { holder, redis.call('PTTL', KEYS[1]) } end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return { ARGV[1], tonumber(ARGV[2]) }`;

/** Key 1: the lease. Argument: holder. */
export const releaseScript = `
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`;

/**
 * Key: a hash, holder -> "count until". Arguments: holder, count, ttl. Answers the sum over holders that still count, as
 * text, because Redis cuts numbers of scripts down to whole ones.
 */
export const tallyScript = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.17g %.17g', ARGV[2], now + ARGV[3]))
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
local sum, all = 0, redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local count, till = string.match(all[i + 1], '(%S+) (%S+)')
  if tonumber(till) <= now then redis.call('HDEL', KEYS[1], all[i]) else sum = sum + tonumber(count) end
end
return string.format('%.17g', sum)
`;
