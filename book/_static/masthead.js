// Predict: covers what a chapter found until the reader has guessed or asks to see it, keeps the
// guesses in this browser, and sums them up on the scoreboard. Nothing leaves the browser.
(() => {
  const KEY = "token-by-token-guesses";
  let kept = {}; // page -> {open: true, key of a question: the guess}

  const load = () => {
    try { kept = JSON.parse(localStorage.getItem(KEY)) ?? kept; } catch { /* blocked: for this page only */ }
  };
  const save = () => {
    try { localStorage.setItem(KEY, JSON.stringify(kept)); } catch { /* likewise */ }
  };

  /** The number in a field, "1,221" or "2.5"; of "×3" or "3x", what it was divided by it (or times it). */
  const parse = ({value: typed, dataset}) => {
    const text = typed.trim().replace(/,(?=\d{3}(\D|$))/g, "").replace(",", ".");
    const found = text.match(/^([×x*]\s*)?(\d*\.?\d+)\s*([×x])?/i);
    if (!found) return NaN;
    const value = parseFloat(found[2]);
    if (!found[1] && !found[3]) return value;
    return "grows" in dataset ? dataset.before * value : dataset.before / value;
  };
  const shown = value => Number(value.toPrecision(3)).toLocaleString("en");
  const off = (said, answer) => Math.max(said / answer, answer / said);
  const factor = value => `×${value < 9.95 ? value.toFixed(1) : Math.round(value)}`;
  const judged = distance => distance < 1.05 ? "right" : `${factor(distance)} off`;

  /** Show the bars of the rungs whose own pages have been asked; those of later ones stay covered. */
  function uncover(masthead) {
    for (const rung of masthead.querySelectorAll(".ttb-ahead")) {
      const page = rung.querySelector("a").getAttribute("href").replace(/\.html$/, "");
      rung.classList.toggle("ttb-seen", Boolean(kept[page]?.open));
    }
  }

  function open(masthead, fields) {
    const guesses = kept[masthead.dataset.page] ?? {};
    masthead.classList.add("ttb-open");
    uncover(masthead);
    const list = document.createElement("ul");
    for (const {name, dataset} of fields) {
      const said = guesses[name];
      if (!(said > 0)) continue;
      const item = list.appendChild(document.createElement("li"));
      item.textContent = `${dataset.label}: you said ${shown(said)} ${dataset.unit}; it is ` +
        `${dataset.words}: ${judged(off(said, dataset.answer))}`;
    }
    masthead.querySelector(".ttb-verdict").replaceChildren(...(list.children.length ? [list] : []));
  }

  function ask(masthead) {
    const form = masthead.querySelector(".ttb-guess"), page = masthead.dataset.page;
    const fields = [...form.querySelectorAll("input")];
    const done = guesses => {
      load();
      kept[page] = {...guesses, open: true};
      save();
      open(masthead, fields);
      masthead.querySelector(".ttb-heads").focus();
    };
    form.addEventListener("submit", event => {
      event.preventDefault();
      const guesses = {}, wrong = [];
      for (const field of fields) {
        if (!field.value.trim()) continue;
        const value = parse(field);
        if (value > 0 && value < Infinity) guesses[field.name] = value; else wrong.push(field);
        field.setAttribute("aria-invalid", !(value > 0));
      }
      if (!wrong.length && Object.keys(guesses).length) return done(guesses);
      masthead.querySelector(".ttb-verdict").textContent =
        wrong.length ? "A guess is a number above 0." : "Type a guess, or choose Show me.";
      (wrong[0] ?? fields[0]).focus();
    });
    form.querySelector(".ttb-show").addEventListener("click", () => done({}));
    if (kept[page]?.open) open(masthead, fields); else uncover(masthead);
  }

  function sum(board) {
    const rows = [...board.querySelectorAll("tbody tr")];
    const count = () => {
      let made = 0, near = 0;
      for (const row of rows) {
        const said = kept[row.dataset.page]?.[row.dataset.key];
        row.hidden = !(said > 0);
        if (row.hidden) continue;
        const distance = off(said, row.dataset.answer);
        made += 1;
        near += distance <= 2;
        row.cells[2].textContent = `${shown(said)} ${row.dataset.unit}`;
        row.cells[4].textContent = judged(distance);
      }
      board.hidden = !made;
      board.querySelector("summary").textContent =
        `Your guesses: within ×2 in ${near} of ${made}` +
        (made < rows.length ? `, of ${rows.length} that the chapters ask for` : "");
    };
    board.querySelector(".ttb-forget").addEventListener("click", () => {
      kept = {};
      try { localStorage.removeItem(KEY); } catch { /* there is none */ }
      count();
    });
    count();
  }

  document.documentElement.classList.add("ttb-guessing"); // before the page is drawn
  addEventListener("DOMContentLoaded", () => {
    load();
    document.querySelectorAll(".ttb-asks").forEach(ask);
    document.querySelectorAll(".ttb-guesses").forEach(sum);
  });
})();
