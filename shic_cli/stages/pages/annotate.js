// The page of `shic annotate`.

const FREE = "";  // the name of a point that has none

/** The name of the other side's point; null for a point in the middle. */
function otherSide(name) {
  const swaps = { left: "right", right: "left", Left: "Right", Right: "Left", LEFT: "RIGHT", RIGHT: "LEFT" };
  const other = name.replace(/left|right|Left|Right|LEFT|RIGHT/, (word) => swaps[word]);
  if (other !== name) return other;
  const letter = name.replace(/(^|[_. -])([LR])(?=$|[_. -])/i, (_, before, side) => before + { L: "R", R: "L", l: "r", r: "l" }[side]);
  return letter === name ? null : letter;
}

/** The side that a name says: 1 left, -1 right, 0 neither. */
function sideOfName(name) {
  if (otherSide(name) === null) return 0;
  return /left/i.test(name) || (!/right/i.test(name) && /(^|[_. -])L($|[_. -])/i.test(name)) ? 1 : -1;
}

class Annotator {
  constructor(data, surface, usable) {
    Object.assign(this, { data, surface, usable, index: 0, chosen: 0, history: [], crosses: [], photos: new Map(), unsaved: 0 });
    this.session = crypto.randomUUID();
    this.saving = Promise.resolve();
    this.element = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
    this.mesh = new MeshView(this.element.mesh, surface, (vertex, pinned) => this.pickVertex(vertex, pinned));
    this.mesh.paint(surface.colors);
  }

  async start() {
    this.listen();
    await this.claim(false);
    await this.readState();
    const open = this.data.photos.findIndex((name) => !this.isStarted(name));
    await this.show(open < 0 ? 0 : open);
    setInterval(() => this.claim(false), 5000);
  }

  // Talking to the server

  async claim(force) {
    const answer = await ask("POST", "claim", JSON.stringify({ session: this.session, force }));
    if (answer.error) return this.tell(`${answer.error}. ${answer.hint}`);
    if (answer.writes && this.writes === false) await this.readState();  // another tab has written meanwhile
    this.writes = answer.writes;
    this.element.locked.hidden = this.writes;
    document.body.classList.toggle("readonly", !this.writes);
  }

  async readState() {
    const state = await ask("GET", "state");
    if (state.error) return this.tell(`${state.error}. ${state.hint}`);
    ({ names: this.names, vertices: this.vertices, images: this.images } = state);
    this.refresh();
  }

  get name() {
    return this.data.photos[this.index];
  }

  get entry() {
    return (this.images[this.name] ??= { points: {}, free: [] });
  }

  get point() {
    return this.names[this.chosen] ?? FREE;
  }

  /** Change the state by `change()`, so that it can be undone, and save it. */
  edit(change) {
    if (!this.writes) return;
    this.history.push(structuredClone({ index: this.index, chosen: this.chosen, entry: this.entry, names: this.names, vertices: this.vertices }));
    this.tell("");
    change();
    this.save(this.index);
    this.refresh();
  }

  save(index) {
    const { points, free } = this.images[this.data.photos[index]] ?? { points: {}, free: [] };
    const body = JSON.stringify({ session: this.session, image: index, points, free, names: this.names, vertices: this.vertices });
    this.unsaved++;
    this.element.saved.textContent = "saving …";
    this.saving = this.saving.then(() => this.send(body));
  }

  /** Send until it is saved: the state is kept here while the server does not answer. */
  async send(body) {
    for (;;) {
      const answer = await ask("POST", "save", body);
      if (answer.saved !== undefined) break;
      this.tell(`Not saved: ${answer.error}. ${answer.hint}`);
      if (answer.error !== "the server does not answer") {
        await this.claim(false);
        this.unsaved--;
        return this.readState();
      }
      await new Promise((done) => setTimeout(done, 2000));
    }
    this.unsaved--;
    if (!this.unsaved) this.element.saved.textContent = `saved in ${this.data.folder}`;
  }

  // What is clicked

  async load(index) {
    if (index < 0 || index >= this.data.photos.length) return null;
    if (!this.photos.has(index)) {
      const answer = await ask("GET", `photo/${index}`);
      if (answer.error) return this.tell(`${answer.error}. ${answer.hint}`), null;
      const photo = new Photo(answer.photo, () => answer.body, this.surface);
      await photo.load();
      this.photos.set(index, photo);
      if (this.photos.size > 12) this.photos.delete(this.photos.keys().next().value);
    }
    return this.photos.get(index);
  }

  async show(index) {
    this.index = Math.min(Math.max(index, 0), this.data.photos.length - 1);
    this.photo = null;
    this.refresh();
    const wanted = this.index, photo = await this.load(wanted);
    if (wanted !== this.index || !photo) return;
    this.photo = photo;
    const first = this.names.findIndex((name) => !this.entry.points[name]);
    if (this.point !== FREE || !this.names.length) this.chosen = Math.max(first, 0);
    this.layOut();
    await drawPhoto(this.element.canvas, photo, 0, "photo", 1);
    this.refresh();
    document.body.dataset.shown = this.name;
    this.load(wanted + 1);
  }

  /** The photo's pixel [x, y] under the pointer. */
  pixelAt(event) {
    const { left, top, width, height } = this.element.canvas.getBoundingClientRect(), [rows, columns] = this.photo.shape;
    const at = (value, size, n) => Math.min(Math.max(Math.floor((value / size) * n), 0), n - 1);
    return [at(event.clientX - left, width, columns), at(event.clientY - top, height, rows)];
  }

  pickPixel(xy) {
    if (!this.photo || !this.writes) return;
    if (this.point === FREE) {
      this.edit(() => (this.pending = [...xy, this.suggestedVertex(xy) ?? -1]));
      if (this.pending[2] >= 0) this.tellMesh("Press space to take the suggested vertex, or click the mesh.");
      return this.refresh();
    }
    this.edit(() => (this.entry.points[this.point] = xy));
    if (this.vertices[this.point] !== undefined) this.step();
  }

  pickVertex(vertex, pinned) {
    this.pointed = vertex < 0 ? null : this.nearestUsable(vertex);
    if (pinned && this.pointed !== null) this.setVertex(this.pointed);
    else this.refreshMesh();
  }

  setVertex(vertex) {
    if (this.point === FREE) {
      if (!this.pending) return this.tellMesh("Click the photo first: this point has no name, and a vertex of its own.");
      const [x, y] = this.pending;
      this.pending = null;
      return this.edit(() => this.entry.free.push([x, y, vertex]));
    }
    const name = this.point, other = otherSide(name), first = this.vertices[name] === undefined;
    this.edit(() => {
      this.vertices[name] = vertex;
      const mirrored = this.nearestUsable(this.surface.mirror[vertex]);
      if (other !== null && this.names.includes(other) && this.vertices[other] === undefined) this.vertices[other] = mirrored;
    });
    const side = this.surface.side[vertex];
    if (sideOfName(name) && side && side !== sideOfName(name))
      this.tell(`${name} is on the ${LEFT[side]} of the mesh. Left and right are the animal's own. Undo (z), or click the other side.`);
    else if (first && this.entry.points[name]) this.step();
  }

  /** The nearest vertex that the mesh file has a vertex for. */
  nearestUsable(vertex) {
    if (this.usable[vertex]) return vertex;
    const distance = this.surface.distances(vertex, 228);
    return distance.reduce((best, d, v) => (this.usable[v] && d < distance[best] ? v : best), this.usable.indexOf(1));
  }

  suggestedVertex([x, y]) {
    const map = this.photo?.maps?.[0];
    if (!map) return null;
    const [rows, columns] = this.photo.shape, { width, height } = this.photo;
    const i = Math.floor(((x + 0.5) * width) / columns), j = Math.floor(((y + 0.5) * height) / rows), v = map.vertex[j * width + i];
    return v < 0 ? null : this.nearestUsable(v);
  }

  /** The pixel that the map suggests for the chosen name, if it is not placed yet. */
  suggestedPixel() {
    const vertex = this.vertices[this.point];
    if (!this.photo?.maps?.[0] || vertex === undefined || this.entry.points[this.point]) return null;
    const place = this.photo.place(0, this.surface.distances(vertex, 15));
    return place && this.photo.filePixel(place.x, place.y);
  }

  /** Take what is suggested: a vertex for a pixel that has none, or a pixel for the name. */
  accept() {
    if (this.pending?.[2] >= 0) return this.setVertex(this.pending[2]);
    const placed = this.entry.points[this.point];
    if (placed && this.vertices[this.point] === undefined) {
      const vertex = this.suggestedVertex(placed);
      return vertex === null ? null : this.setVertex(vertex);
    }
    const pixel = this.suggestedPixel();
    if (pixel) this.pickPixel(pixel);
  }

  /** Go to the next name that is not placed in this photo. */
  step() {
    const order = [...this.names.keys()].map((i) => (this.chosen + 1 + i) % this.names.length);
    const next = order.find((i) => !this.entry.points[this.names[i]]);
    if (next === undefined) this.tellMesh("All points of this photo are placed: PageDown goes to the next photo.");
    else this.choose(next);
  }

  choose(i) {
    this.chosen = i;
    this.pending = null;
    this.refresh();
  }

  undo() {
    const before = this.history.pop();
    if (!before || !this.writes) return;
    this.pending = null;
    const name = this.data.photos[before.index];
    Object.assign(this, { names: before.names, vertices: before.vertices, chosen: before.chosen });
    this.images[name] = before.entry;
    this.save(before.index);
    if (before.index !== this.index) this.show(before.index);
    else this.refresh();
  }

  remove() {
    if (this.point === FREE) this.edit(() => (this.pending ? (this.pending = null) : this.entry.free.pop()));
    else if (this.entry.points[this.point]) this.edit(() => delete this.entry.points[this.point]);
  }

  swap() {
    this.edit(() => {
      const swapped = {};
      for (const [name, place] of Object.entries(this.entry.points)) {
        const other = otherSide(name);
        swapped[other !== null && this.names.includes(other) ? other : name] = place;
      }
      this.entry.points = swapped;
    });
  }

  addName(name) {
    if (!name || this.names.includes(name)) return;
    this.edit(() => this.names.push(name));
    this.choose(this.names.length - 1);
  }

  nudge(dx, dy) {
    const place = this.entry.points[this.point], [rows, columns] = this.photo.shape;
    if (!place) return;
    const at = (value, n) => Math.min(Math.max(Math.floor(value), 0), n - 1);
    this.edit(() => (this.entry.points[this.point] = [at(place[0] + dx, columns), at(place[1] + dy, rows)]));
  }

  // Keys and buttons

  listen() {
    const { element } = this;
    const clicks = {
      before: () => this.show(this.index - 1), after: () => this.show(this.index + 1), undo: () => this.undo(), swap: () => this.swap(),
      remove: () => this.remove(), help: () => element.keys.showModal(), take: () => this.claim(true), reset: () => this.mesh.reset(),
      face: () => this.turn(), free: () => this.choose(this.names.length),
    };
    for (const [id, action] of Object.entries(clicks)) element[id].addEventListener("click", action);
    element.photo.append(...this.data.photos.map((name, i) => new Option(name, i)));
    element.photo.addEventListener("change", () => this.show(Number(element.photo.value)));
    element.wire.addEventListener("change", () => this.mesh.wireframe(element.wire.checked));
    element.zoom.addEventListener("input", () => this.layOut());
    element.add.addEventListener("submit", (event) => {
      event.preventDefault();
      this.addName(element.name.value.trim());
      element.name.value = "";
      element.name.blur();
    });
    element.canvas.addEventListener("click", (event) => this.photo && this.pickPixel(this.pixelAt(event)));
    document.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.layOut()).observe(element.focus);
    addEventListener("pagehide", () => {
      const token = new URLSearchParams(location.search).get("token");
      navigator.sendBeacon(`/release?token=${encodeURIComponent(token)}`, JSON.stringify({ session: this.session }));
    });
    addEventListener("beforeunload", (event) => this.unsaved && event.preventDefault());
  }

  key(event) {
    const typing = event.target.matches("input:not([type=range], [type=checkbox]), select");
    if (event.key === "Escape") event.target.blur();
    if (typing || this.element.keys.open || event.altKey || ((event.ctrlKey || event.metaKey) && event.key !== "z")) return;
    const { zoom } = this.element, by = (factor) => ((zoom.value = Number(zoom.value) * factor), this.layOut());
    const count = this.names.length;
    const actions = {
      ArrowDown: () => (event.shiftKey ? this.nudge(0, 1) : count && this.choose((this.chosen + 1) % count)),
      ArrowUp: () => (event.shiftKey ? this.nudge(0, -1) : count && this.choose((this.chosen + count - 1) % count)),
      ArrowLeft: () => event.shiftKey && this.nudge(-1, 0),
      ArrowRight: () => event.shiftKey && this.nudge(1, 0),
      PageDown: () => this.show(this.index + 1), n: () => this.show(this.index + 1),
      PageUp: () => this.show(this.index - 1), p: () => this.show(this.index - 1),
      " ": () => this.accept(), z: () => this.undo(), x: () => this.swap(), d: () => this.remove(), Delete: () => this.remove(),
      ".": () => this.choose(count), "+": () => by(1.25), "-": () => by(0.8), "?": () => this.element.keys.showModal(),
      w: () => this.element.wire.click(), r: () => this.mesh.reset(), f: () => this.turn(),
    };
    if (!actions[event.key] || !this.photo) return;
    event.preventDefault();
    if (document.activeElement !== document.body) document.activeElement.blur();
    actions[event.key]();
  }

  turn() {
    const vertex = this.vertices[this.point];
    if (vertex !== undefined) this.mesh.face(vertex);
  }

  // What is drawn

  layOut() {
    if (!this.photo) return;
    const { focus, stage, zoom } = this.element, [rows, columns] = this.photo.shape;
    const scale = Math.min(focus.clientWidth / columns, focus.clientHeight / rows) * Number(zoom.value);
    stage.style.width = `${Math.floor(columns * scale)}px`;
    stage.style.height = `${Math.floor(rows * scale)}px`;
  }

  tell(text) {
    this.element.notice.textContent = text;
    this.element.notice.hidden = !text;
  }

  tellMesh(text) {
    this.said = text;
    this.refreshMesh();
  }

  refresh() {
    this.said = "";
    if (!this.names) return;
    this.element.photo.value = this.index;
    const done = this.data.photos.filter((name) => this.isStarted(name)).length;
    this.element.done.textContent = `points in ${done} of ${this.data.photos.length} photos`;
    this.listNames();
    this.markPhoto();
    this.refreshMesh();
  }

  isStarted(name) {
    const entry = this.images[name];
    return Boolean(entry && (Object.keys(entry.points).length || entry.free?.length));
  }

  listNames() {
    const { list, free } = this.element;
    list.replaceChildren(...this.names.map((name, i) => {
      const item = make("li", i === this.chosen ? "chosen" : ""), button = make("button", "", name);
      const placed = this.entry.points[name], vertex = this.vertices[name];
      item.append(button, make("span", "small", `${placed ? "✓ pixel" : "– pixel"} ${vertex === undefined ? "– mesh" : "✓ mesh"}`));
      button.addEventListener("click", () => (this.choose(i), button.blur()));
      return item;
    }));
    list.children[this.chosen]?.scrollIntoView({ block: "nearest" });
    free.classList.toggle("chosen", this.point === FREE);
  }

  markPhoto() {
    const marks = !this.photo ? [] : this.names.flatMap((name, i) => {
      const place = this.entry.points[name];
      return place ? [{ place, label: `${i + 1}${i === this.chosen ? ` ${name}` : ""}`, faint: i !== this.chosen }] : [];
    });
    if (this.photo) {
      for (const place of this.entry.free ?? []) marks.push({ place, label: "·", faint: true });
      if (this.pending) marks.push({ place: this.pending, label: "?", faint: false });
      const suggested = this.suggestedPixel();
      if (suggested) marks.push({ place: suggested, label: `${this.chosen + 1} ${this.point}? (space)`, faint: true, dashed: true });
    }
    while (this.crosses.length > marks.length) this.crosses.pop().remove();
    marks.forEach(({ place: [x, y], label, faint, dashed }, i) => {
      this.crosses[i] ??= this.element.stage.appendChild(crosshair());
      const [rows, columns] = this.photo.shape;
      setCrosshair(this.crosses[i], `${(100 * (Math.floor(x) + 0.5)) / columns}%`, `${(100 * (Math.floor(y) + 0.5)) / rows}%`, label, faint);
      this.crosses[i].classList.toggle("dashed", Boolean(dashed));
    });
  }

  refreshMesh() {
    const marks = this.names.flatMap((name, i) => {
      const vertex = this.vertices[name];
      return vertex === undefined ? [] : [{ vertex, label: `${i + 1}${i === this.chosen ? ` ${name}` : ""}`, faint: i !== this.chosen }];
    });
    const suggested = this.pending ? this.pending[2] : this.needsVertex() ? this.suggestedVertex(this.entry.points[this.point]) : null;
    if (suggested !== null && suggested >= 0) marks.push({ vertex: suggested, label: "? (space)", faint: true });
    if (this.pointed >= 0 && this.pointed !== null && this.pointed !== this.vertices[this.point]) marks.push({ vertex: this.pointed, label: this.surface.sideName(this.pointed), faint: true });
    this.mesh.show(marks);
    this.element.status.textContent = this.said || this.nextStep();
  }

  needsVertex() {
    return this.point !== FREE && Boolean(this.entry.points[this.point]) && this.vertices[this.point] === undefined;
  }

  nextStep() {
    if (!this.names.length && this.point === FREE && !this.pending) return "Add the points' names on the right, or click the photo and then the mesh.";
    if (this.point === FREE) return this.pending ? "Click the place on the mesh." : "Click the photo, then the mesh: a point without a name.";
    if (this.needsVertex()) return `Click where ${this.point} is on the mesh.`;
    return this.entry.points[this.point] ? `${this.point} is placed; a click moves it.` : `Click ${this.point} in the photo.`;
  }
}

(async () => {
  const data = readJson("data"), surface = await Surface.read(data.surface);
  window.annotator = new Annotator(data, surface, await unpacked(data.usable));
  await window.annotator.start();
  document.body.dataset.ready = "yes";
})();
