// npm `eventsource`: tells what it is told of the stream at argv[2], a line of JSON each.
const [major, minor] = process.versions.node.split(".").map(Number);
const isNew = major > 22 || (major === 22 && minor >= 12);
const { EventSource } = await import(isNew ? "eventsource" : "eventsource-3");

const tell = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const source = new EventSource(process.argv[2]);
source.onopen = () => tell({ open: true });
source.onerror = (event) => tell({ error: String(event.message ?? event.type), closed: source.readyState === 2 });
for (const name of ["message", "beat", "gap", "migrate", "tick"]) {
  source.addEventListener(name, (event) => tell({ name, id: event.lastEventId, data: event.data }));
}
