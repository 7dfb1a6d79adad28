/* The menus of the page's head (downloads, places to run a chapter), in place of Bootstrap's script. */
addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll('[data-bs-toggle="dropdown"]')) {
    const menu = button.nextElementSibling;
    const open = (yes) => {
      menu.classList.toggle("show", yes);
      button.setAttribute("aria-expanded", yes);
    };
    button.addEventListener("click", () => open(!menu.classList.contains("show")));
    addEventListener("click", (event) => button.parentElement.contains(event.target) || open(false));
    button.parentElement.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      open(false);
      button.focus();
    });
  }
});
