// The template's surface, and distances along its edges.

const LEFT = { "-1": "right", 0: "middle", 1: "left" };

class Surface {
  /** From `data` as surface_data of page.py writes it. */
  static async read(data) {
    const { vertices: K, faces: F } = data;
    const parts = [[Float32Array, 3 * K], [Uint32Array, 3 * F], [Uint32Array, K], [Uint8Array, 3 * K], [Int8Array, K]];
    const surface = new Surface();
    [surface.verts, surface.faces, surface.mirror, surface.colors, surface.side] =
      arraysOf(await unpacked(data.data), parts);
    surface.count = K;
    surface.scale = data.scale;
    surface.link();
    return surface;
  }

  /** Neighbours of each vertex and the lengths of the edges to them, on the 228 scale. */
  link() {
    const { faces, count } = this, ends = new Set();
    for (let i = 0; i < faces.length; i += 3)
      for (let j = 0; j < 3; j++) {
        const a = faces[i + j], b = faces[i + ((j + 1) % 3)];
        ends.add(a * count + b).add(b * count + a);
      }
    const edges = Float64Array.from(ends).sort();
    this.first = new Uint32Array(count + 1);
    this.next = new Uint32Array(edges.length);
    this.length = new Float32Array(edges.length);
    edges.forEach((edge, i) => {
      const a = Math.floor(edge / count), b = edge % count;
      this.first[a + 1]++;
      this.next[i] = b;
      this.length[i] = this.scale * Math.hypot(...[0, 1, 2].map((k) => this.verts[3 * a + k] - this.verts[3 * b + k]));
    });
    for (let v = 0; v < count; v++) this.first[v + 1] += this.first[v];
  }

  /** The distances of all vertices from `start` (Dijkstra), Infinity for those that are farther than `limit`. */
  distances(start, limit) {
    const distance = new Float32Array(this.count).fill(Infinity), heap = [[0, start]];
    distance[start] = 0;
    while (heap.length) {
      const [here, vertex] = popLeast(heap);
      if (here > distance[vertex]) continue;
      for (let i = this.first[vertex]; i < this.first[vertex + 1]; i++) {
        const there = Math.fround(here + this.length[i]);
        if (there <= limit && there < distance[this.next[i]]) {
          distance[this.next[i]] = there;
          push(heap, [there, this.next[i]]);
        }
      }
    }
    return distance;
  }

  /** The vertex of a face that is nearest to a point `{x, y, z}`. */
  nearestCorner(face, point) {
    const corners = [0, 1, 2].map((i) => this.faces[3 * face + i]);
    const away = (v) => Math.hypot(this.verts[3 * v] - point.x, this.verts[3 * v + 1] - point.y, this.verts[3 * v + 2] - point.z);
    return corners.reduce((best, v) => (away(v) < away(best) ? v : best));
  }

  /** What to call the side that a vertex is on. */
  sideName(vertex) {
    return LEFT[this.side[vertex]];
  }
}

function push(heap, item) {
  let at = heap.push(item) - 1;
  while (at > 0) {
    const above = (at - 1) >> 1;
    if (heap[above][0] <= item[0]) break;
    heap[at] = heap[above];
    at = above;
  }
  heap[at] = item;
}

function popLeast(heap) {
  const least = heap[0], item = heap.pop();
  if (!heap.length) return least;
  let at = 0;
  for (;;) {
    let below = 2 * at + 1;
    if (below >= heap.length) break;
    if (below + 1 < heap.length && heap[below + 1][0] < heap[below][0]) below++;
    if (heap[below][0] >= item[0]) break;
    heap[at] = heap[below];
    at = below;
  }
  heap[at] = item;
  return least;
}

/** Colours from dark to light, so that a value can be told by lightness alone; `value` from 0 to 1. */
const SCALE = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
function scaleColor(value) {
  const place = Math.min(Math.max(value, 0), 1) * (SCALE.length - 1), i = Math.min(Math.floor(place), SCALE.length - 2);
  return SCALE[i].map((low, k) => low + (SCALE[i + 1][k] - low) * (place - i));
}

/** The uncertainty of the lightest colour, as in the pictures of `shic predict --unsure`. */
const UNSURE = 57;

const SIDE_COLORS = { "-1": [230, 159, 0], 0: [190, 190, 190], 1: [0, 90, 181] };
