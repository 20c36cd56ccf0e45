"use strict";
// A slider makes the picture that it belongs to more or less transparent.
for (const slider of document.querySelectorAll("input[data-blends]")) {
  const picture = document.getElementById(slider.dataset.blends);
  const blend = () => {
    picture.style.opacity = slider.value / 100;
    slider.setAttribute("aria-valuetext", `${slider.value} % view 0`);
  };
  slider.addEventListener("input", blend);
  blend();
}
