// What a person did to one sample, to be undone. Kept as long as the page is open.
export class History {
  constructor() {
    this.past = [];
    this.future = [];
  }

  remember(before) {
    this.past.push(before);
    this.future = [];
  }

  undo(now) {
    const before = this.past.pop();
    if (before) this.future.push(now);
    return before;
  }

  redo(now) {
    const after = this.future.pop();
    if (after) this.past.push(now);
    return after;
  }
}
