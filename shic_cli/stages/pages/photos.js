// A photo with its maps, and its card in the grid; both are decoded when they come in sight.

class Photo {
  /** `listed` and `body()` as photo_data of page.py writes them; `body` is asked for when it is needed. */
  constructor(listed, body, surface) {
    Object.assign(this, listed, { body, surface, maps: null });
    [this.height, this.width] = listed.size;
  }

  /** The maps, decoded: of each layer `{vertex, score, unsure}` at the shown pixels, null where it has none. */
  async load() {
    this.loading ??= (async () => {
      const body = this.body();
      this.points = body.points ?? [];
      this.jpeg = new Blob([bytesOf(body.jpeg)], { type: "image/jpeg" });
      this.maps = await Promise.all(body.maps.map((text) => (text === null ? null : this.decode(text))));
      return this;
    })();
    return this.loading;
  }

  async decode(text) {
    const n = this.width * this.height, bytes = await unpacked(text);
    const vertex = new Int32Array(n), score = new Float32Array(n), unsure = bytes.length > 6 * n ? new Float32Array(n) : null;
    for (let i = 0; i < n; i++) {
      vertex[i] = (bytes[i] | (bytes[n + i] << 8) | (bytes[2 * n + i] << 16)) - 1;
      score[i] = halfToNumber(bytes[4 * n + i] | (bytes[5 * n + i] << 8));
      if (unsure) unsure[i] = halfToNumber(bytes[6 * n + i] | (bytes[7 * n + i] << 8));
    }
    return { vertex, score, unsure, ...this.places(vertex) };
  }

  /** Of every vertex that is seen one pixel: of those that have it, the nearest to their middle. */
  places(vertex) {
    const { width, surface } = this, K = surface.count;
    const count = new Uint32Array(K), sumX = new Float64Array(K), sumY = new Float64Array(K);
    vertex.forEach((v, i) => v >= 0 && (count[v]++, (sumX[v] += i % width), (sumY[v] += Math.floor(i / width))));
    const best = new Float64Array(K).fill(Infinity), at = new Int32Array(K);
    vertex.forEach((v, i) => {
      if (v < 0) return;
      const away = (i % width - sumX[v] / count[v]) ** 2 + (Math.floor(i / width) - sumY[v] / count[v]) ** 2;
      if (away < best[v]) (best[v] = away), (at[v] = i);
    });
    const seen = Uint32Array.from(count.keys()).filter((v) => count[v]);
    return { seen, pixel: Int32Array.from(seen, (v) => at[v]) };
  }

  /** The shown pixel of a layer that is nearest along the surface, by distances from a vertex; null: not in view. */
  place(layer, distance) {
    const map = this.maps?.[layer];
    if (!map) return null;
    let best = Infinity, at = -1;
    for (let i = 0; i < map.seen.length; i++)
      if (distance[map.seen[i]] < best) (best = distance[map.seen[i]]), (at = map.pixel[i]);
    return at < 0 ? null : { x: at % this.width, y: Math.floor(at / this.width), distance: best, vertex: map.vertex[at] };
  }

  /** The photo's own pixel [x, y] that a shown pixel stands for. */
  filePixel(x, y) {
    return [Math.floor(((x + 0.5) * this.shape[1]) / this.width), Math.floor(((y + 0.5) * this.shape[0]) / this.height)];
  }
}

/** Draws a photo on a canvas, its map over it as `mode` says; `highest` is the score of the lightest colour. */
async function drawPhoto(canvas, photo, layer, mode, highest) {
  await photo.load();
  const bitmap = await createImageBitmap(photo.jpeg);
  if (canvas.width !== photo.width) canvas.width = photo.width;
  if (canvas.height !== photo.height) canvas.height = photo.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0, photo.width, photo.height);
  bitmap.close();
  const map = photo.maps[layer];
  if (mode === "photo" || !map) return;
  const image = context.getImageData(0, 0, photo.width, photo.height);
  overlay(image.data, photo, map, mode, highest);
  context.putImageData(image, 0, 0);
}

function overlay(data, photo, map, mode, highest) {
  const { colors, side } = photo.surface;
  for (let i = 0; i < map.vertex.length; i++) {
    const v = map.vertex[i], k = 4 * i;
    const grey = 0.65 * (data[k] + data[k + 1] + data[k + 2]) / 3, faint = mode === "error" || v < 0 || (mode === "unsure" && !map.unsure);
    for (let c = 0; c < 3; c++) data[k + c] = (0.35 * data[k + c] + grey) * (faint ? 0.6 : 1);
    if (faint) continue;
    let color, share = 0.75;
    if (mode === "colors") color = colors.subarray(3 * v, 3 * v + 3);
    else if (mode === "score") color = scaleColor(map.score[i] / highest);
    else if (mode === "unsure") color = scaleColor(map.unsure[i] / UNSURE);
    else color = sideColor(side[v], i % photo.width, Math.floor(i / photo.width));
    for (let c = 0; c < 3; c++) data[k + c] = data[k + c] * (1 - share) + color[c] * share;
  }
}

/** The colour of a side; the right is striped, so that the sides can be told without hue. */
function sideColor(side, x, y) {
  return side < 0 && (x + y) % 8 < 3 ? [40, 30, 0] : SIDE_COLORS[side];
}

class Card {
  /** The card of a photo in the grid; `app` hears of clicks and has what is to be drawn. */
  constructor(photo, app) {
    Object.assign(this, { photo, app, crosses: [], drawn: "" });
    this.element = make("figure", "card", "", { tabindex: "0" });
    this.panes = app.layers.map((layer, i) => this.makePane(i));
    this.caption = make("figcaption");
    this.name = make("span", "name", photo.name, { title: photo.name });
    this.said = make("span", "said");
    this.caption.append(this.name, this.said);
    const row = make("div", "panes");
    row.append(...this.panes.map((pane) => pane.box));
    this.element.append(row, this.caption);
    this.element.card = this;
  }

  makePane(layer) {
    const box = make("div", "pane"), canvas = make("canvas");
    box.style.aspectRatio = `${this.photo.width} / ${this.photo.height}`;
    box.append(canvas);
    if (this.app.layers.length > 1) box.append(make("span", "layer", this.app.layers[layer].label));
    if (!this.photo.layers[layer]) box.append(make("span", "none", "not in this file"));
    const report = (event, pinned) => this.app.pickPixel(this.photo, layer, ...this.pixelAt(box, event), pinned, event);
    box.addEventListener("pointermove", (event) => event.pointerType === "touch" || report(event, false));
    box.addEventListener("pointerleave", () => this.app.leave());
    box.addEventListener("click", (event) => report(event, true));
    const unseen = box.appendChild(make("span", "not-in-view"));
    return { box, canvas, layer, unseen, crosses: [], points: [] };
  }

  pixelAt(box, event) {
    const { left, top, width, height } = box.getBoundingClientRect();
    const at = (value, size, n) => Math.min(Math.max(Math.floor((value / size) * n), 0), n - 1);
    return [at(event.clientX - left, width, this.photo.width), at(event.clientY - top, height, this.photo.height)];
  }

  /** Draw what is not drawn yet; `near` tells that the card is in sight or about to be. */
  async draw(near) {
    this.near = near;
    const wanted = near ? `${this.app.mode} ${this.app.highest} ${this.app.shownLayers}` : "";
    if (wanted === this.drawn) return;
    this.drawn = wanted;
    for (const pane of this.panes) {
      pane.box.hidden = !this.app.shownLayers.includes(pane.layer);
      if (!near) pane.canvas.width = pane.canvas.height = 0;
      else if (!pane.box.hidden) await drawPhoto(pane.canvas, this.photo, pane.layer, this.app.mode, this.app.highest[pane.layer]);
    }
    if (near) {
      this.panes.forEach((pane) => this.showPoints(pane));
      this.mark();
    }
  }

  showPoints(pane) {
    pane.points.forEach((point) => point.remove());
    pane.points = this.app.mode !== "error" ? [] : (this.photo.points[pane.layer] ?? []).map(({ x, y, error, swapped, name }) => {
      const figure = error === null ? "" : error.toFixed(0) + (swapped ? "⇄" : "");
      const [height, width] = this.photo.shape, point = make("div", "point", figure || "·", { title: `${name} ${figure}`.trim() });
      if (name) point.append(make("small", "", name));
      point.style.left = `${(100 * (x + 0.5)) / width}%`;
      point.style.top = `${(100 * (y + 0.5)) / height}%`;
      point.style.background = `rgb(${scaleColor(error / 114).join()})`;
      point.style.color = error > 60 ? "#000" : "#fff";
      return pane.box.appendChild(point);
    });
  }

  /** Put the marks where they are in this photo's maps, and say which are not in view. */
  mark() {
    if (!this.near || !this.photo.maps) return;
    const missing = this.panes.map((pane) => (pane.box.hidden || !this.photo.layers[pane.layer] ? [] : this.markPane(pane)));
    this.element.classList.toggle("unseen", missing.flat().length > 0);
    this.say(this.said, this.figures());
  }

  markPane(pane) {
    const missing = [], places = [];
    for (const mark of this.app.marks) {
      const own = mark.photo === this.photo && mark.layer === pane.layer;
      const place = own ? mark : this.photo.place(pane.layer, mark.distance);
      if (place) places.push({ ...place, label: mark.label, faint: mark.faint });
      else missing.push(mark.label);
    }
    while (pane.crosses.length > places.length) pane.crosses.pop().remove();
    places.forEach((place, i) => {
      pane.crosses[i] ??= pane.box.appendChild(crosshair());
      const left = `${(100 * (place.x + 0.5)) / this.photo.width}%`, top = `${(100 * (place.y + 0.5)) / this.photo.height}%`;
      setCrosshair(pane.crosses[i], left, top, place.label, place.faint);
    });
    this.say(pane.unseen, missing.length ? `${missing.filter(Boolean).join(", ")} not in view`.trim() : "");
    return missing;
  }

  figures() {
    return this.app.shownLayers.map((i) => this.photo.layers[i]).map((layer) => {
      if (!layer) return "–";
      const parts = [`score ${layer.score === null ? "–" : layer.score.toFixed(2)}`];
      if (typeof layer.unsure === "number") parts.push(`± ${layer.unsure.toFixed(1)}`);
      if (layer.error !== undefined) parts.push(`error ${layer.error.toFixed(1)}`);
      return parts.join(", ");
    }).join(" | ");
  }

  say(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }
}
