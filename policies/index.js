// Pulumi loads packs with require(), which takes JavaScript; Node strips the types of what it imports.
export { pack } from "./pack.ts";
