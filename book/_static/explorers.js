// The widgets' sliders have no accessible name, and their buttons don't say which one is chosen.
const nameControls = () => {
  for (const handle of document.querySelectorAll(".widget-hslider .noUi-handle")) {
    const slider = handle.closest(".widget-hslider");
    handle.setAttribute("aria-label", slider.querySelector(".widget-label").textContent);
    handle.setAttribute("aria-valuetext", slider.querySelector(".widget-readout").textContent);
  }
  for (const group of document.querySelectorAll(".widget-toggle-buttons")) {
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", group.querySelector(".widget-label").textContent);
    for (const button of group.querySelectorAll("button"))
      button.setAttribute("aria-pressed", button.classList.contains("mod-active"));
  }
};
new MutationObserver(nameControls).observe(document.body, {
  subtree: true, childList: true, characterData: true,
  attributes: true, attributeFilter: ["class", "aria-valuenow"],
});
