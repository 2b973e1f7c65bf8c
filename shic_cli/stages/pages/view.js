// The page of `shic view`.

const ORDERS = {
  name: ["name", (photo) => photo.name],
  score: ["score, lowest first", (photo, layer) => layer?.score ?? Infinity],
  unsure: ["uncertainty, largest first", (photo, layer) => -(layer?.unsure ?? -1)],
  error: ["error, largest first", (photo, layer) => -(layer?.error ?? -1)],
  swapped: ["left and right mixed up, most first", (photo, layer) => -(layer?.swapped ?? -1)],
  left: ["side seen, left first", (photo, layer) => -(layer?.left ?? -1)],
};
const MODES = { photo: "photo", colors: "colours", score: "score", unsure: "uncertainty", side: "left/right", error: "points" };
const NEEDS = { unsure: "hasUnsure", error: "hasPoints", swapped: "hasPoints" };

class Viewer {
  constructor(data, surface) {
    Object.assign(this, { data, surface, layers: data.layers, near: data.near, mode: "colors", pins: [], hover: null });
    this.shownLayers = data.layers.map((_, i) => i);
    this.cards = [];
    this.element = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
    this.mesh = new MeshView(this.element.mesh, surface, (vertex, pinned, event) => this.pickVertex(vertex, pinned, event));
    this.sight = new IntersectionObserver((entries) => this.inSight(entries), { root: this.element.photos, rootMargin: "300px" });
    data.photos.forEach((listed, i) => this.add(new Photo(listed, () => readJson(`photo-${i}`), surface)));
    this.hasPoints = data.photos.some((photo) => photo.layers.some((layer) => layer?.points));
    this.hasUnsure = data.served || data.photos.some((photo) => photo.layers.some((layer) => typeof layer?.unsure === "number"));
    this.build();
    this.listen();
    this.setMode("colors");
    this.arrange();
    this.refresh();
    this.loadAll();
  }

  get marks() {
    return this.hover ? [...this.pins, this.hover] : this.pins;
  }

  add(photo) {
    const card = new Card(photo, this);
    this.cards.push(card);
    this.sight.observe(card.element);
    return card;
  }

  inSight(entries) {
    for (const entry of entries) entry.target.card.draw(entry.isIntersecting);
  }

  build() {
    const { element } = this;
    const possible = ([name]) => !NEEDS[name] || this[NEEDS[name]];
    const modes = Object.entries(MODES).filter(possible);
    this.modeNames = modes.map(([name]) => name);
    element.mode.append(...modes.map(([name, text], i) => new Option(`${i + 1} ${text}`, name)));
    const orders = Object.entries(ORDERS).filter(possible);
    element.order.append(...orders.map(([name, [text]]) => new Option(text, name)));
    element.near.value = this.near;
    element.size.value = this.layers.length > 1 ? 180 : 220;
    if (this.layers.length > 1) this.buildLayers();
    const { total, photos } = this.data;
    if (total > photos.length)
      this.say(element.notice, `${photos.length} of ${total} photos are shown. Choose others with --only 'PATTERN' (on names), more with --most N, the unsure ones with --first unsure.`);
  }

  buildLayers() {
    this.layers.forEach((layer, i) => {
      const label = make("label", "layer-choice"), box = make("input", "", "", { type: "checkbox" });
      box.checked = true;
      box.addEventListener("change", () => {
        const chosen = this.layers.map((_, j) => j).filter((j) => this.element.layers.querySelectorAll("input")[j].checked);
        if (chosen.length) this.shownLayers = chosen;
        else box.checked = true;
        this.arrange();
        this.redraw();
      });
      label.append(box, `${layer.label} (${layer.kind})`);
      this.element.layers.append(label);
    });
  }

  listen() {
    const { element } = this;
    element.mode.addEventListener("change", () => this.setMode(element.mode.value));
    element.order.addEventListener("change", () => this.arrange());
    element.search.addEventListener("input", () => this.arrange());
    element.wire.addEventListener("change", () => this.mesh.wireframe(element.wire.checked));
    element.size.addEventListener("input", () => this.resize());
    element.near.addEventListener("input", () => this.setNear(Number(element.near.value)));
    element.clear.addEventListener("click", () => this.clear());
    element.reset.addEventListener("click", () => this.mesh.reset());
    element.help.addEventListener("click", () => element.keys.showModal());
    document.addEventListener("keydown", (event) => this.key(event));
    this.resize();
  }

  resize() {
    this.element.photos.style.setProperty("--card", `${this.element.size.value}px`);
  }

  key(event) {
    const typing = event.target.matches("input[type=search], select, textarea");
    if (event.key === "Escape") return typing ? event.target.blur() : this.clear();
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const size = this.element.size;
    const actions = {
      "/": () => this.element.search.focus(),
      "?": () => this.element.keys.showModal(),
      w: () => this.element.wire.click(),
      r: () => this.mesh.reset(),
      f: () => this.pins.length && this.mesh.face(this.pins.at(-1).vertex),
      m: () => this.pins.length && this.addPin({ vertex: this.surface.mirror[this.pins.at(-1).vertex] }, true),
      Backspace: () => (this.pins.pop(), this.refresh()),
      "+": () => ((size.value = Number(size.value) * 1.25), this.resize()),
      "-": () => ((size.value = Number(size.value) / 1.25), this.resize()),
      Enter: () => this.pinMiddle(event.target.card),
      ArrowLeft: () => this.nudge(-1, 0),
      ArrowRight: () => this.nudge(1, 0),
      ArrowUp: () => this.nudge(0, -1),
      ArrowDown: () => this.nudge(0, 1),
    };
    const mode = this.modeNames[Number(event.key) - 1];
    const action = mode ? () => this.setMode(mode) : actions[event.key];
    if (!action || (event.key === "Enter" && !event.target.card)) return;
    if (event.key.startsWith("Arrow") && !this.pins.at(-1)?.photo) return;
    event.preventDefault();
    action();
  }

  /** Mark the pixel of a card that is nearest to the middle of the object. */
  async pinMiddle(card) {
    const layer = this.shownLayers[0], photo = await card.photo.load(), map = photo.maps[layer];
    if (!map?.seen.length) return;
    const away = (i) => Math.hypot((i % photo.width) - photo.width / 2, Math.floor(i / photo.width) - photo.height / 2);
    const at = map.pixel.reduce((best, i) => (away(i) < away(best) ? i : best));
    this.pickPixel(photo, layer, at % photo.width, Math.floor(at / photo.width), true, {});
  }

  nudge(dx, dy) {
    const { photo, layer, x, y } = this.pins.at(-1);
    const [toX, toY] = [Math.min(Math.max(x + dx, 0), photo.width - 1), Math.min(Math.max(y + dy, 0), photo.height - 1)];
    if (photo.maps[layer].vertex[toY * photo.width + toX] >= 0) this.pickPixel(photo, layer, toX, toY, true, {});
  }

  /** A pixel of a photo is under the pointer, or clicked (`pinned`). */
  pickPixel(photo, layer, x, y, pinned, event) {
    const map = photo.maps?.[layer];
    if (!map) return;
    const at = y * photo.width + x, vertex = map.vertex[at];
    if (vertex < 0) return pinned ? this.say(this.element.status, `${photo.name}: this pixel has no vertex`) : this.leave();
    const mark = { vertex, photo, layer, x, y, score: map.score[at], unsure: map.unsure?.[at] };
    if (pinned) {
      this.addPin(mark, event.shiftKey);
      this.mesh.face(vertex);
    } else this.setHover(mark);
  }

  pickVertex(vertex, pinned, event) {
    if (vertex < 0) return this.leave();
    if (pinned) this.addPin({ vertex }, event.shiftKey);
    else this.setHover({ vertex });
  }

  addPin(mark, more) {
    if (!more) this.pins.pop();
    this.hover = null;
    this.pins.push({ ...mark, distance: this.surface.distances(mark.vertex, this.near) });
    this.refresh();
  }

  setHover(mark) {
    const key = `${mark.vertex} ${mark.photo?.name} ${mark.layer} ${mark.x} ${mark.y}`;
    if (this.hover?.key === key) return;
    this.hover = { ...mark, key, label: "", faint: true, distance: this.surface.distances(mark.vertex, this.near) };
    this.later();
  }

  leave() {
    if (!this.hover) return;
    this.hover = null;
    this.later();
  }

  later() {
    this.frame ??= requestAnimationFrame(() => ((this.frame = null), this.refresh()));
  }

  clear() {
    this.pins = [];
    this.hover = null;
    this.refresh();
  }

  setNear(near) {
    this.near = near;
    for (const mark of this.marks) mark.distance = this.surface.distances(mark.vertex, near);
    this.refresh();
  }

  /** Show the marks everywhere. */
  refresh() {
    this.pins.forEach((mark, i) => (mark.label = String(i + 1)));
    this.mesh.show(this.marks);
    for (const card of this.cards) card.mark();
    this.element.nearSaid.textContent = `${this.near} of 228`;
    this.element.status.textContent = this.marks.map((mark) => this.describe(mark)).join("\n") || "Point at a pixel or at the mesh; click to keep the mark, Shift+click for one more.";
  }

  describe(mark) {
    const parts = [`${mark.label || "pointer"}: vertex ${mark.vertex}, ${this.surface.sideName(mark.vertex)}`];
    if (mark.photo) {
      const [x, y] = mark.photo.filePixel(mark.x, mark.y);
      parts.push(`${mark.photo.name} x ${x}, y ${y}, score ${mark.score.toFixed(3)}`);
      if (mark.unsure !== undefined) parts.push(`uncertainty ${mark.unsure.toFixed(1)} of 228`);
    }
    if (mark.label) {
      const maps = this.cards.flatMap(({ photo }) => this.shownLayers.filter((i) => photo.maps?.[i]).map((i) => photo.place(i, mark.distance)));
      parts.push(`in view in ${maps.filter(Boolean).length} of ${maps.length} maps`);
    }
    return parts.join(" · ");
  }

  setMode(mode) {
    this.mode = this.element.mode.value = mode;
    this.highest = this.layers.map((_, i) => 1.3 * Math.max(1e-6, ...this.cards.map(({ photo }) => photo.layers[i]?.score ?? 0)));
    this.paint();
    this.legend();
    this.redraw();
  }

  redraw() {
    for (const card of this.cards) if (card.near) card.draw(true);
  }

  legend() {
    const texts = {
      photo: "", colors: "each vertex has its colour",
      side: "blue: the template's left; orange, striped: its right; grey: the middle",
      score: `score from 0 (dark) to ${this.shownLayers.map((i) => this.highest[i].toPrecision(2)).join(" | ")} (light); on the mesh the mean over the photos`,
      unsure: `how far off the map expects to be along the surface: from 0 (dark, sure) to ${UNSURE} and more (light, unsure) of 228; on the mesh the mean over the photos`,
      error: "annotated points, with their names and geodesic errors (largest 228) where these are known; ⇄: left and right mixed up",
    };
    this.element.legend.textContent = texts[this.mode];
  }

  /** The mesh's colours in this mode. */
  paint() {
    const { surface, mode } = this, colors = new Uint8Array(3 * surface.count).fill(170);
    if (mode === "colors") colors.set(surface.colors);
    const set = (v, color) => colors.set(color.map(Math.round), 3 * v);
    if (mode === "side") surface.side.forEach((side, v) => set(v, SIDE_COLORS[side]));
    if (mode === "score") this.means((map, i, layer) => map.score[i] / this.highest[layer]).forEach((value, v) => value >= 0 && set(v, scaleColor(value)));
    if (mode === "unsure") this.means((map, i) => map.unsure && map.unsure[i] / UNSURE).forEach((value, v) => value >= 0 && set(v, scaleColor(value)));
    if (mode === "error") this.meanErrors().forEach((value, v) => set(v, scaleColor(value / 114)));
    this.mesh.paint(colors);
  }

  /** The mean of a map's `value(map, pixel, layer)` at each vertex over the shown maps; -1 where none has it. */
  means(value) {
    const sum = new Float64Array(this.surface.count), count = new Uint32Array(this.surface.count);
    for (const { photo } of this.cards)
      for (const layer of this.shownLayers) {
        const map = photo.maps?.[layer];
        map?.vertex.forEach((v, i) => {
          const found = v >= 0 ? value(map, i, layer) : null;
          if (found !== null) (count[v]++, (sum[v] += found));
        });
      }
    return sum.map((total, v) => (count[v] ? total / count[v] : -1));
  }

  /** The mean error at each annotated vertex, of all layers that are shown. */
  meanErrors() {
    const sums = new Map();
    for (const { photo } of this.cards)
      for (const layer of this.shownLayers)
        for (const { truth, error } of photo.points?.[layer] ?? []) {
          if (error === null) continue;
          const [sum, count] = sums.get(truth) ?? [0, 0];
          sums.set(truth, [sum + error, count + 1]);
        }
    return new Map([...sums].map(([v, [sum, count]]) => [v, sum / count]));
  }

  /** The cards that are searched for, in the chosen order. */
  arrange() {
    const words = this.element.search.value.toLowerCase(), value = ORDERS[this.element.order.value][1];
    const keyed = this.cards.map((card) => [value(card.photo, card.photo.layers[this.shownLayers[0]]), card]);
    keyed.sort(([a, one], [b, other]) => (a < b ? -1 : a > b ? 1 : one.photo.name < other.photo.name ? -1 : 1));
    for (const [, card] of keyed) card.element.hidden = !card.photo.name.toLowerCase().includes(words);
    this.element.photos.append(...keyed.map(([, card]) => card.element));
    const shown = keyed.filter(([, card]) => !card.element.hidden).length;
    this.element.count.textContent = `${shown} of ${this.cards.length} photos`;
  }

  /** Decode the maps that are not in sight, a photo at a time, so that marks are found in all of them. */
  async loadAll() {
    for (const card of [...this.cards]) {
      await card.photo.load();
      await new Promise((done) => (window.requestIdleCallback ?? setTimeout)(done));
    }
    document.body.dataset.loaded = "yes";
    this.refresh();
    if (["score", "unsure", "error"].includes(this.mode)) this.paint();
  }

  say(element, text) {
    element.textContent = text;
    element.hidden = !text;
  }
}

/** Photos that are dropped, chosen or pasted go to the server, and come back with their map. */
class Drop {
  constructor(viewer) {
    this.viewer = viewer;
    const { drop, file } = viewer.element;
    drop.hidden = false;
    file.addEventListener("change", () => this.take(file.files));
    document.addEventListener("dragover", (event) => (event.preventDefault(), drop.classList.add("over")));
    document.addEventListener("dragleave", () => drop.classList.remove("over"));
    document.addEventListener("drop", (event) => (event.preventDefault(), drop.classList.remove("over"), this.take(event.dataTransfer.files)));
    document.addEventListener("paste", (event) => this.take(event.clipboardData.files));
  }

  async take(files) {
    for (const file of [...files]) await this.predict(file);
  }

  async predict(file) {
    const { viewer } = this, say = (text) => viewer.say(viewer.element.notice, text);
    say(`${file.name}: is being predicted …`);
    const found = await ask("POST", `predict?name=${encodeURIComponent(file.name)}`, file);
    if (found.error) return say(`${file.name}: ${found.error}. ${found.hint}`);
    say("");
    const photo = new Photo(found.photo, () => found.body, viewer.surface), card = viewer.add(photo);
    await photo.load();
    viewer.setMode(viewer.mode);
    viewer.arrange();
    viewer.refresh();
    card.element.scrollIntoView({ block: "nearest" });
  }
}

(async () => {
  const data = readJson("data"), surface = await Surface.read(data.surface);
  window.viewer = new Viewer(data, surface);
  if (data.served) window.drop = new Drop(window.viewer);
  document.body.dataset.ready = "yes";
})();
