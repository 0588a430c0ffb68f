// A worker and the requests that wait for its answers.

import type { Reply, Request } from "./protocol.js";

interface Waiting {
  hear?: (reply: Reply) => void;
  resolve: (reply: Reply) => void;
  reject: (error: unknown) => void;
}

/** Replies that are not the last one of their request. */
const PASSING = new Set<Reply["type"]>(["progress", "piece"]);

export class Link {
  private readonly worker: Worker;
  private readonly waiting = new Map<number, Waiting>();
  private next = 0;
  /** Why there is no worker any more. */
  private closed?: { reason: unknown };
  private busy = false;

  constructor(make: () => Worker) {
    this.worker = make();
    this.worker.onmessage = ({ data }: MessageEvent<{ id: number; reply: Reply }>) =>
      this.hear(data.id, data.reply);
    this.worker.onerror = (event) => {
      event.preventDefault();
      this.close(
        new Error(
          `the worker failed (${event.message || "it could not be started"}): load the model again`,
        ),
      );
    };
    this.worker.onmessageerror = () =>
      this.close(new Error("the worker sent something unreadable"));
  }

  /** Sends a request and waits for its last reply; `hear` gets the replies before. */
  ask(request: Request, hear?: (reply: Reply) => void): Promise<Reply> {
    return new Promise((resolve, reject) => {
      if (this.closed) return reject(this.closed.reason);
      const id = this.next++;
      this.waiting.set(id, { hear, resolve, reject });
      this.worker.postMessage({ id, request });
    });
  }

  /** The same for requests of which there may be one at a time. */
  async askAlone(request: Request, hear: (reply: Reply) => void): Promise<Reply> {
    if (this.busy) throw new Error("another answer is under way: wait for its end or stop it");
    this.busy = true;
    try {
      return await this.ask(request, hear);
    } finally {
      this.busy = false;
    }
  }

  /** Sends a request that has no reply. */
  tell(request: Request): void {
    if (!this.closed) this.worker.postMessage({ id: this.next++, request });
  }

  /** Ends the worker; waiting requests are rejected with `reason`. */
  close(reason: unknown): void {
    if (this.closed) return;
    this.closed = { reason };
    this.worker.terminate();
    for (const { reject } of this.waiting.values()) reject(reason);
    this.waiting.clear();
  }

  private hear(id: number, reply: Reply): void {
    const waiting = this.waiting.get(id);
    if (!waiting) return;
    if (PASSING.has(reply.type)) return waiting.hear?.(reply);
    this.waiting.delete(id);
    if (reply.type === "failed") waiting.reject(new Error(reply.message));
    else waiting.resolve(reply);
  }
}
