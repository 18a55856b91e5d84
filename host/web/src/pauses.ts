/** Waits between tries that all end early when there is reason to try again at once. */
export class Pauses {
  private readonly waiting = new Set<() => void>();

  pause(ms: number): Promise<void> {
    return new Promise((done) => {
      const end = () => {
        clearTimeout(timer);
        this.waiting.delete(end);
        done();
      };
      const timer = setTimeout(end, ms);
      this.waiting.add(end);
    });
  }

  endAll(): void {
    for (const end of [...this.waiting]) end();
  }
}

/** How long to wait before try number `attempt` (1 is the first repetition), with jitter. */
export function backoff(attempt: number): number {
  return Math.min(15_000, 250 * 2 ** attempt) * (0.5 + Math.random() / 2);
}
