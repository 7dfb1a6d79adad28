/* What a glossary term means, shown where the pointer rests on it, it has the focus or a finger taps it. */
addEventListener("DOMContentLoaded", () => {
  const data = document.getElementById("ttb-terms");
  if (!data) return;
  const notes = JSON.parse(data.textContent);
  const note = document.createElement("div");
  note.id = "ttb-term-note";
  note.setAttribute("role", "tooltip");
  note.hidden = true;
  document.body.append(note);
  let shown = null, leaving = 0, touched = false;

  const hide = () => {
    note.hidden = true;
    shown?.removeAttribute("aria-describedby");
    shown = null;
  };
  const hideSoon = () => { leaving = setTimeout(hide, 200); };
  const show = (link) => {
    clearTimeout(leaving);
    if (shown === link) return;
    hide();
    const [term, meaning] = notes[decodeURIComponent(link.hash.slice(1))];
    const name = document.createElement("strong");
    name.textContent = term;
    note.replaceChildren(name, ` ${meaning}`);
    if (touched) {
      const more = document.createElement("a");
      more.href = link.href;
      more.textContent = "Glossary";
      note.append(" ", more);
    }
    note.hidden = false;
    const at = link.getClientRects()[0], wide = document.documentElement.clientWidth;
    const left = Math.max(8, Math.min(at.left, wide - note.offsetWidth - 8));
    const below = at.bottom + note.offsetHeight + 8 < innerHeight || at.top < note.offsetHeight + 8;
    note.style.left = `${left + scrollX}px`;
    note.style.top = `${(below ? at.bottom + 6 : at.top - note.offsetHeight - 6) + scrollY}px`;
    link.setAttribute("aria-describedby", note.id);
    shown = link;
  };

  for (const link of document.querySelectorAll('article a[href*="glossary.html#term-"]')) {
    if (!(decodeURIComponent(link.hash.slice(1)) in notes)) continue;
    link.addEventListener("pointerenter", (event) => {
      touched = event.pointerType === "touch";
      if (!touched) show(link);
    });
    link.addEventListener("pointerleave", (event) => event.pointerType === "touch" || hideSoon());
    link.addEventListener("focus", () => link.matches(":focus-visible") && show(link));
    link.addEventListener("blur", hideSoon);
    link.addEventListener("click", (event) => {
      if (!touched || shown === link) return;
      event.preventDefault();
      show(link);
    });
  }
  note.addEventListener("pointerenter", () => clearTimeout(leaving));
  note.addEventListener("pointerleave", (event) => event.pointerType === "touch" || hideSoon());
  addEventListener("keydown", (event) => event.key === "Escape" && hide());
  addEventListener("pointerdown", (event) => note.contains(event.target) || event.target.closest("a") === shown || hide());
});
