// Messages to the server. Changes are sent one after the other; of several that wait, the last one counts. A server that is
// away is tried again until it is back.
const RETRY_MS = 1500;

export async function request(path, method = "GET", body = undefined) {
  const answer = await fetch(path, {
    method,
    body: body === undefined ? (method === "GET" ? undefined : "") : JSON.stringify(body),
    headers: { "content-type": "application/json" },
  });
  const found = await answer.json().catch(() => ({ problem: `the server answered ${answer.status}` }));
  if (!answer.ok) throw Object.assign(new Error(found.problem), { status: answer.status });
  return found;
}

export class Saver {
  // showStatus(text, isProblem): shows a status line; kept(sample, answer): a change is on disk.
  constructor(showStatus, kept) {
    Object.assign(this, { showStatus, kept, waiting: new Map(), busy: null, sending: null });
  }

  get pending() {
    return this.waiting.size > 0 || this.busy !== null;
  }

  // Whether a change of this sample waits or is on its way.
  holds(number) {
    return this.sending === number || this.waiting.has(number);
  }

  // `sample` is the page's record of it; its revision is read when the change is sent.
  change(sample) {
    this.waiting.set(sample.number, sample);
    this.busy ??= this.#send().finally(() => (this.busy = null));
    return this.busy;
  }

  async #send() {
    while (this.waiting.size) {
      const [number, sample] = this.waiting.entries().next().value;
      this.waiting.delete(number);
      this.sending = number;
      this.showStatus("Saving", false);
      try {
        const { id, revision, targets, state, flagged, note } = sample;
        const answer = await request(`/api/samples/${number}`, "PUT", { id, revision, boxes: targets, state, flagged, note });
        sample.revision = answer.revision;
        this.kept(sample);
        if (!this.waiting.size) this.showStatus("Saved", false);
      } catch (error) {
        if (error.status && error.status < 500) {
          this.showStatus(`Not saved: ${error.message}`, true);
          continue;
        }
        if (!this.waiting.has(number)) this.waiting.set(number, sample);
        this.showStatus(error.status ? `Not saved: ${error.message}` : "Not saved: the server does not respond; restart it, and this page continues", true);
        await new Promise((done) => setTimeout(done, RETRY_MS));
      } finally {
        this.sending = null;
      }
    }
  }
}
