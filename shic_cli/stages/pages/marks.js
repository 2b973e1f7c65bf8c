// Crosshairs: on the mesh and on the photos alike.

function crosshair() {
  const cross = make("div", "cross");
  cross.append(make("i"), make("b"));
  return cross;
}

function setCrosshair(cross, left, top, label, faint) {
  cross.style.left = left;
  cross.style.top = top;
  cross.classList.toggle("faint", Boolean(faint));
  if (cross.lastChild.textContent !== label) cross.lastChild.textContent = label;
}
