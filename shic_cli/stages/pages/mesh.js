// The mesh: turning, zooming, colours, wireframe, picking a vertex, and marks on it.

class MeshView {
  /** In the element `pane`; `onPick(vertex, pinned, event)` hears of the vertex under the pointer (-1: none). */
  constructor(pane, surface, onPick) {
    Object.assign(this, { pane, surface, onPick, marks: [], labels: [], frames: 0 });
    try {
      this.renderer = new THREE.WebGLRenderer({ antialias: true, alpha: true });
    } catch (error) {
      const said = "This browser has no WebGL, so the mesh can't be drawn. The photos can be looked at without it.";
      pane.append(make("p", "no-webgl", said, { role: "alert" }));
      return;
    }
    this.build();
    this.listen();
  }

  build() {
    const { surface, renderer, pane } = this;
    renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    renderer.outputColorSpace = "srgb-linear";  // the vertices' colours are drawn as they are
    renderer.setClearColor(0, 0);
    pane.prepend(renderer.domElement);
    renderer.domElement.setAttribute("aria-label", "the mesh: drag to turn it, scroll to zoom, click to mark a vertex");
    this.scene = new THREE.Scene();
    this.camera = new THREE.PerspectiveCamera(35, 1, 0.01, 100);
    this.geometry = new THREE.BufferGeometry();
    this.geometry.setAttribute("position", new THREE.BufferAttribute(surface.verts, 3));
    this.geometry.setAttribute("color", new THREE.BufferAttribute(new Uint8Array(surface.colors), 3, true));
    this.geometry.setIndex(new THREE.BufferAttribute(surface.faces, 1));
    this.geometry.computeVertexNormals();
    const material = new THREE.MeshLambertMaterial({ vertexColors: true, polygonOffset: true, polygonOffsetFactor: 1, polygonOffsetUnits: 1 });
    this.mesh = new THREE.Mesh(this.geometry, material);
    const light = new THREE.DirectionalLight(0xffffff, 1.6);
    light.position.set(0.3, 0.6, 1);
    this.camera.add(light);
    this.scene.add(this.mesh, this.camera, new THREE.AmbientLight(0xffffff, 1.7));
    this.controls = new THREE.OrbitControls(this.camera, renderer.domElement);
    this.raycaster = new THREE.Raycaster();
    this.reset();
  }

  listen() {
    this.controls.addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.resize()).observe(this.pane);
    const canvas = this.renderer.domElement;
    let down = null;
    canvas.addEventListener("pointerdown", (event) => (down = [event.clientX, event.clientY]));
    canvas.addEventListener("pointermove", (event) => event.buttons || this.onPick(this.vertexAt(event), false, event));
    canvas.addEventListener("pointerleave", (event) => this.onPick(-1, false, event));
    canvas.addEventListener("pointerup", (event) => {
      const moved = down === null || Math.hypot(event.clientX - down[0], event.clientY - down[1]) > 4;
      if (!moved && event.button === 0) this.onPick(this.vertexAt(event), true, event);
      down = null;
    });
    this.resize();
  }

  resize() {
    const width = this.pane.clientWidth, height = this.pane.clientHeight;
    if (!width || !height) return;
    this.renderer.setSize(width, height);
    this.camera.aspect = width / height;
    const narrow = Math.min(this.camera.aspect, 1);
    this.camera.fov = (2 * Math.atan(Math.tan((17.5 * Math.PI) / 180) / narrow) * 180) / Math.PI;
    this.camera.updateProjectionMatrix();
    this.draw();
  }

  /** The view from the animal's left, a little from the front and above. */
  reset() {
    this.camera.position.set(1.9, 0.55, 0.8);
    this.controls.target.set(0, 0, 0);
    this.controls.update();
  }

  /** Turn so that a vertex faces the viewer, as far away as before. */
  face(vertex) {
    if (!this.renderer || !this.hidden(vertex)) return;
    const normal = new THREE.Vector3().fromBufferAttribute(this.geometry.attributes.normal, vertex);
    normal.y *= 0.5;  // not from straight above or below
    const away = this.camera.position.distanceTo(this.controls.target);
    this.camera.position.copy(normal.normalize().multiplyScalar(away).add(this.controls.target));
    this.controls.update();
    this.draw();
  }

  /** Colours u1 (K, 3) of the vertices. */
  paint(colors) {
    if (!this.renderer) return;
    this.geometry.attributes.color.array.set(colors);
    this.geometry.attributes.color.needsUpdate = true;
    this.draw();
  }

  wireframe(on) {
    if (!this.renderer) return;
    if (!this.wires) {
      const lines = new THREE.LineBasicMaterial({ color: 0x000000, transparent: true, opacity: 0.45 });
      this.wires = new THREE.LineSegments(new THREE.WireframeGeometry(this.geometry), lines);
      this.scene.add(this.wires);
    }
    this.wires.visible = on;
    this.draw();
  }

  /** The vertex under the pointer, -1 for none: the nearest on the screen that can be seen, so that a point of
   *  the outline can be hit; else the nearest on the surface. */
  vertexAt(event) {
    const box = this.renderer.domElement.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    const near = this.verticesNear(x, y, 5).find((vertex) => !this.hidden(vertex));
    if (near !== undefined) return near;
    this.raycaster.setFromCamera(new THREE.Vector2((x / box.width) * 2 - 1, 1 - (y / box.height) * 2), this.camera);
    const hit = this.raycaster.intersectObject(this.mesh)[0];
    return hit ? this.surface.nearestCorner(hit.faceIndex, hit.point) : -1;
  }

  /** At most four vertices that are drawn within `reach` pixels of a place, the nearest first. */
  verticesNear(x, y, reach) {
    const found = [];
    for (let vertex = 0; vertex < this.surface.count; vertex++) {
      const [atX, atY] = this.project(vertex), away = Math.hypot(atX - x, atY - y);
      if (away <= reach) found.push([away, vertex]);
    }
    return found.sort((a, b) => a[0] - b[0]).slice(0, 4).map(([, vertex]) => vertex);
  }

  position(vertex) {
    return new THREE.Vector3().fromArray(this.surface.verts, 3 * vertex);
  }

  /** Whether the surface itself hides a vertex from the viewer. */
  hidden(vertex) {
    const place = this.position(vertex), ray = place.clone().sub(this.camera.position);
    this.raycaster.set(this.camera.position, ray.clone().normalize());
    const hit = this.raycaster.intersectObject(this.mesh)[0];
    return Boolean(hit) && hit.distance < ray.length() - 0.01;
  }

  /** Where a vertex is drawn, in CSS pixels from the pane's top left. */
  project(vertex) {
    const place = this.position(vertex).project(this.camera);
    return [((place.x + 1) / 2) * this.pane.clientWidth, ((1 - place.y) / 2) * this.pane.clientHeight];
  }

  /** Show these marks, each `{label, vertex, faint}`. */
  show(marks) {
    this.marks = marks;
    if (this.renderer) this.draw();
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.frames++;
      this.renderer.render(this.scene, this.camera);
      this.place();
    });
  }

  place() {
    while (this.labels.length > this.marks.length) this.labels.pop().remove();
    this.marks.forEach((mark, i) => {
      this.labels[i] ??= this.pane.appendChild(crosshair());
      const [x, y] = this.project(mark.vertex);
      const hidden = this.hidden(mark.vertex);
      setCrosshair(this.labels[i], x + "px", y + "px", mark.label + (hidden ? " (behind)" : ""), mark.faint || hidden);
      this.labels[i].dataset.vertex = mark.vertex;
    });
  }
}
