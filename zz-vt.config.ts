import base from "/work/main/vitest.config.ts";
const p = base.test.projects.find((x) => x.test.name === "contract");
export default { ...base, test: { ...base.test, projects: [{ ...p, test: { ...p.test, dir: "/tmp/servers/contract", include: ["/tmp/servers/contract/*.test.ts"] } }] } };
