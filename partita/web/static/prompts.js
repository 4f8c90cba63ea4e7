// A draft that has come opens in the editor.
"use strict";

document.addEventListener("fresh", (event) => {
  if (event.target.dataset.then) location.assign(event.target.dataset.then);
});
