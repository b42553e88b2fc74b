/** What `npm start` prints when it serves: the URL, the key, and a line to paste. */
export function banner(stack: {
  readonly url: string;
  readonly apiKey: string;
  readonly models: readonly string[];
}): string {
  const [model = "model"] = stack.models;
  const body = JSON.stringify({ model, stream: true, messages: [{ role: "user", content: "Hello! Who are you?" }] });
  return `
Penstock serves ${stack.models.join(", ")}

  URL  ${stack.url}/v1
  Key  ${stack.apiKey}

Try it:

  curl -N ${stack.url}/v1/chat/completions -H 'Authorization: Bearer ${stack.apiKey}' -H 'Content-Type: application/json' -d '${body.replaceAll("'", "'\\''")}'

Ctrl-C stops it.
`;
}
