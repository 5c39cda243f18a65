// Calls Runway's SDK for npm, one line of JSON in and one out, in order:
// {"call": "avatars.list", "arguments": [{"limit": 2}], "all": true}. `all`: the entries of all pages.
// {"value": ...}, or {"error": {"kind", "status", "body"}} for an error of the SDK's.
import { createInterface } from 'node:readline';
import RunwayML, { APIError, toFile } from '@runwayml/sdk';

const options = JSON.parse(process.argv[2]);
const client = new RunwayML(options);

async function entries(page) {
  const found = [];
  for await (const entry of page) found.push(entry);
  return found;
}

async function given(argument) {
  if (argument?.file === undefined) return argument;
  const { name, base64 } = argument.file;
  return { ...argument, file: await toFile(Buffer.from(base64, 'base64'), name) };
}

async function answer({ call, arguments: list, all }) {
  const [resource, method] = call.split('.');
  try {
    const called = client[resource][method](...(await Promise.all(list.map(given))));
    return { value: (await (all ? entries(called) : called)) ?? null };
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    const body = error.error ?? null;
    return { error: { kind: error.constructor.name, status: error.status ?? null, body } };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await answer(JSON.parse(line))));
}
