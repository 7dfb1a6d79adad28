/* How the search orders what it finds, and what it quotes. It becomes the head of Sphinx's searchtools.js. */
var Scorer = {
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 30,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
  // A glossary entry names a word, a chapter explains it. What is found in a section is called after it.
  score: (result) => {
    const [page, title, anchor, , score] = result;
    if (anchor && !title.includes(" > ")) {
      const { alltitles, docnames } = Search._index;
      for (const [section, places] of Object.entries(alltitles))
        if (places.some(([at, id]) => docnames[at] === page && `#${id}` === anchor) && !title.endsWith(section))
          result[1] = `${title} > ${section}`;
    }
    if (page === "book/glossary") return score / 2;
    if (page === "book/teaching" && anchor === "") return score - 3;
    return score;
  },
};
addEventListener("DOMContentLoaded", () => {
  const NO_PROSE = "pre, svg, figure, table, details, nav, script, style, h1, h2, h3, .headerlink, .ttb-recorded, .onlyprint";
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    const part = (anchor && page.getElementById(anchor.slice(1))) || page.querySelector("article");
    if (!part) return "";
    if (part.matches("dt")) return part.nextElementSibling.textContent.trim();
    for (const other of part.querySelectorAll(NO_PROSE)) other.remove();
    return part.textContent.replace(/\s+/g, " ").trim();
  };
});
