import type { Policy } from "../policy.ts";
import { hashName } from "../prefix-hash.ts";
import { distance } from "./consistent.ts";
import { leastLoad } from "./least-load.ts";

/** A conversation stays on its replica, whatever the load. Without a session key: least load. */
export const session: Policy = {
  name: "session",
  terms(request, replicas, context) {
    if (request.sessionKey === null) return leastLoad.terms(request, replicas, context);
    const key = hashName(request.sessionKey);
    return [{ name: "distance", cost: (replica) => distance(key, replica) }];
  },
};
