for (const figure of document.querySelectorAll("figure.ttb-loops:not([data-live])")) {
  const batches = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
  const form = figure.querySelector("form"), svg = form.querySelector("svg");
  const slider = form.querySelector("[type=range]"), said = form.querySelector("p");
  const LEFT = 48, RIGHT = 10, LANE = 26, HOST = 26, GPU = 58, AXIS = 132;
  const colour = (name, fallback) => `var(--ttb-${name}, ${fallback})`;
  const host = colour("host", "#7D8490"), work = colour("work", "#33779E"), idle = colour("idle", "#CC3311");
  const ground = colour("background", "Canvas"), muted = colour("muted", "currentColor");
  const ms = us => (us / 1000).toFixed(2) + " ms";
  const safe = words => words.replace(/[&<>]/g, found => `&#${found.charCodeAt()};`);
  const chosen = name => +form.querySelector(`[data-choice=${name}] :checked`).value;
  let way = chosen("way"), ghost = +form.dataset.ghost, batch = chosen("batch");

  function loop(index) { return batches[batch].loops[index]; }

  function draw() {
    const { scale } = batches[batch], width = svg.clientWidth || 640;
    const x = us => LEFT + us / scale * (width - LEFT - RIGHT);
    const text = (at, y, words, more = "") => `<text x="${at.toFixed(1)}" y="${y}" ${more}>${safe(words)}</text>`;
    const box = (a, b, y, height, style) =>
      `<rect x="${x(a).toFixed(1)}" y="${y}" width="${Math.max(x(b) - x(a), 0.5).toFixed(1)}" height="${height}" style="${style}"/>`;
    const inside = (a, b, y, words, fill) => x(b) - x(a) > 8 * words.length + 4
      ? text((x(a) + x(b)) / 2, y + 18, words, `text-anchor="middle" style="fill:${fill}"`) : "";
    const atEnd = (end, y, words, style) =>
      text(Math.min(Math.max(x(end), 7.6 * words.length), width), y, words, `text-anchor="end" style="${style}"`);
    const parts = [], now = loop(way), before = ghost === way ? null : loop(ghost);
    if (before) {
      const outline = `fill:none;stroke:${muted};stroke-dasharray:3 2`;
      parts.push(box(0, before.total, HOST - 4, LANE + 8, outline));
      for (const [a, b] of before.gpu) parts.push(box(a, b, GPU - 3, LANE + 7, outline));
      parts.push(atEnd(before.total, 122, `before: ${before.asks}, ${before.took}`, `fill:${muted}`));
    }
    parts.push(text(0, 13, now.asks, 'style="font-weight:600"'));
    parts.push(text(0, HOST + 18, "host", `style="fill:${muted}"`), text(0, GPU + 18, "GPU", `style="fill:${muted}"`));
    const launches = now.host.filter(one => !one[3]);
    const numbered = 2 * launches.filter(([a, b]) => x(b) - x(a) > 20).length > launches.length;
    for (const [a, b, token, waits] of now.host) {
      if (waits) {
        parts.push(box(a, b, HOST, LANE, `fill:${ground};stroke:${host}`));
        let path = "";
        for (let at = -LANE; at < x(b) - x(a); at += 7) {
          const left = Math.max(at, 0), right = Math.min(at + LANE, x(b) - x(a));
          if (right > left) path += `M${(x(a) + left).toFixed(1)} ${(HOST + LANE - left + at).toFixed(1)}L${(x(a) + right).toFixed(1)} ${(HOST + LANE - right + at).toFixed(1)}`;
        }
        parts.push(`<path d="${path}" style="stroke:${host};fill:none"/>`);
      } else {
        parts.push(box(a, b, HOST, LANE, `fill:${ground}`), box(a, b, HOST, LANE, `fill:${host};fill-opacity:.3;stroke:${host}`));
        if (numbered) parts.push(inside(a, b, HOST, "" + token, "currentColor"));
      }
    }
    for (const [a, b] of now.idle) parts.push(box(a, b, GPU, LANE, `fill:${idle}`));
    for (const [a, b, token] of now.gpu) {
      parts.push(box(a, b, GPU, LANE, `fill:${work};stroke:${ground};stroke-width:.8`), inside(a, b, GPU, "" + token, ground));
    }
    parts.push(atEnd(now.total, GPU + LANE + 18, now.took, "font-weight:600"));
    const apart = width < 480 ? 55 : 80;
    let step = 10;
    for (let at = 0; x(step) - LEFT < apart; at++) step *= [2, 2.5, 2][at % 3];
    parts.push(`<path d="M${LEFT} ${AXIS}H${width - RIGHT}" style="stroke:currentColor;fill:none"/>`);
    for (let at = 0; at <= scale; at += step) {
      parts.push(`<path d="M${x(at).toFixed(1)} ${AXIS}v5" style="stroke:currentColor"/>`);
      parts.push(text(x(at), AXIS + 20, at / 1000 + (at ? "" : " ms"), 'text-anchor="middle"'));
    }
    const head = x(+slider.value).toFixed(1);
    parts.push(`<path d="M${head} 20V${AXIS}m0 -112l-5 -6h10z" style="stroke:currentColor;stroke-width:1.5;fill:currentColor"/>`);
    svg.setAttribute("viewBox", `0 0 ${width} 158`);
    svg.innerHTML = parts.join("");
    svg.dataset.state = [way, batch, ghost, slider.value];
    svg.setAttribute("aria-label", `Batch ${batches[batch].name}, ${result()} ${moment()}`);
    slider.ariaValueText = ms(+slider.value);
  }

  function result() {
    const before = ghost === way ? "" : ` Before: ${loop(ghost).asks}, ${loop(ghost).took}.`;
    const { asks, took } = loop(way);
    return `${asks[0].toUpperCase()}${asks.slice(1)}: ${took}.${before}`;
  }

  function moment() {
    const t = +slider.value, now = loop(way), at = items => items.find(([a, b]) => a <= t && t < b);
    if (t >= now.total) return `At ${ms(t)} all of its tokens are done.`;
    const doing = at(now.host), working = at(now.gpu), waiting = at(now.idle);
    const ahead = doing && working && doing[2] - working[2];
    const hosts = !doing ? "the host goes on to the next step"
      : doing[3] ? `the host waits for token ${doing[2]}’s flag`
      : `the host launches token ${doing[2]}` + (ahead > 1 ? `, ${ahead} ahead of the GPU` : "");
    const gpus = working ? `the GPU works on token ${working[2]}`
      : waiting ? `the GPU has been idle for ${ms(t - waiting[0])}` : "the GPU goes on to the next step";
    return `At ${ms(t)} ${hosts}; ${gpus}.`;
  }

  function say(first) {
    // What the picture shows in words of its own is read out only.
    const unseen = document.createElement("span");
    unseen.style = "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)";
    unseen.textContent = first;
    said.replaceChildren(unseen, moment());
  }

  form.addEventListener("input", () => {
    const [newWay, newBatch] = [chosen("way"), chosen("batch")], scrubbed = newWay === way && newBatch === batch;
    if (newWay !== way) [ghost, way] = [way, newWay];
    if (newBatch !== batch) {
      const share = slider.value / slider.max;
      batch = newBatch;
      slider.max = Math.ceil(batches[batch].scale / slider.step) * slider.step;
      slider.value = share * slider.max;
    }
    draw();
    say(scrubbed ? "" : result() + " ");
  });
  figure.dataset.live = "";
  form.hidden = false;
  figure.querySelector(".ttb-still").hidden = true;
  draw();
  say("");
  new ResizeObserver(draw).observe(svg);
}
