"use strict";
// Reading what the page holds: base64, zlib, and the arrays in them.

/** The bytes of a base64 text. */
function bytesOf(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

/** The bytes of a compressed base64 text. */
async function unpacked(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Typed arrays, one after the other, from the bytes of `buffer`; each of `parts` is [type, length]. */
function arraysOf(buffer, parts) {
  let start = 0;
  return parts.map(([type, length]) => {
    const end = start + length * type.BYTES_PER_ELEMENT;
    const array = new type(buffer.slice(start, end).buffer);
    start = end;
    return array;
  });
}

/** The value of a half-precision number. */
function halfToNumber(half) {
  const sign = half & 0x8000 ? -1 : 1, exponent = (half >> 10) & 31, fraction = half & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The value in a JSON script element of the page. */
function readJson(id) {
  const element = document.getElementById(id);
  return element ? JSON.parse(element.textContent) : null;
}

/** A new element with a class, a text and attributes; texts are never read as HTML. */
function make(tag, kind = "", text = "", attributes = {}) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  if (text) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** What the page's own server answers, as a JSON value; `{error, hint}` where it refuses or is gone. */
async function ask(method, path, body) {
  const headers = { "X-Shic-Token": new URLSearchParams(location.search).get("token") ?? "" };
  try {
    return await (await fetch(`/${path}`, { method, headers, body })).json();
  } catch (error) {
    return { error: "the server does not answer", hint: "Start it again with the same line." };
  }
}
