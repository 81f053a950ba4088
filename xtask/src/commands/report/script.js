"use strict";
(() => {
  // What a program wrote may be no JSON: then what would be drawn from it is left out.
  const read = (id) => {
    try {
      return JSON.parse(document.getElementById(id).textContent);
    } catch {
      return null;
    }
  };
  const data = Object.fromEntries(["plan", "other-plan", "docker", "other-docker", "apptainer"].map((id) => [id, read(id)]));

  // Every text becomes a text node: a name cannot become markup.
  const make = (tag, attributes, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (value !== undefined && value !== null) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== undefined && child !== null && child !== ""));
    return element;
  };
  const sum = (list, of) => list.reduce((total, one) => total + (of(one) ?? 0), 0);
  const plural = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
  const size = (bytes) => {
    let value = bytes;
    for (const unit of ["B", "kB", "MB", "GB"]) {
      if (value < 999.5 || unit === "GB") return unit === "B" ? `${bytes} B` : `${value.toFixed(1)} ${unit}`;
      value /= 1000;
    }
  };
  const percent = (part) => (part < 0.001 ? "less than 0.1 %" : `${(100 * part).toFixed(1)} %`);
  const short = (digest) => String(digest).replace("sha256:", "").slice(0, 12);

  // ---- light and dark
  const theme = () => {
    const root = document.documentElement;
    const button = document.getElementById("theme");
    const asked = matchMedia("(prefers-color-scheme: dark)");
    const remembered = (value) => {
      try {
        if (value) localStorage.setItem("report-theme", value);
        return localStorage.getItem("report-theme");
      } catch {
        return null; // a page from a file may have no storage
      }
    };
    const isDark = () => (root.dataset.theme ?? (asked.matches ? "dark" : "light")) === "dark";
    const name = () => { button.textContent = isDark() ? "Light colours" : "Dark colours"; };
    const known = remembered();
    if (known === "dark" || known === "light") root.dataset.theme = known;
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      remembered(root.dataset.theme);
      name();
    });
    asked.addEventListener("change", name);
    name();
  };

  // ---- tables whose heads sort them
  const sortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    heads.forEach((head, column) => {
      const button = make("button", { type: "button" }, head.textContent);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const first = head.classList.contains("number") ? "descending" : "ascending";
        const order = before === null ? first : before === "ascending" ? "descending" : "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
        const compare = (a, b) => value(a).localeCompare(value(b), "en", { numeric: true });
        const rows = [...body.rows].sort(compare);
        body.append(...(order === "ascending" ? rows : rows.reverse()));
      });
    });
  };

  // ---- how packages of one environment are in the other
  const environment = document.getElementById("layers-place")?.dataset.environment;
  const other = document.getElementById("layers-place")?.dataset.other;
  const kinds = {
    same: (name) => `the same package in ${name}`,
    moved: (name) => `another version or build in ${name}`,
    own: (name) => `not in ${name}`,
  };
  const kindOf = (plan) => {
    if (!plan) return () => "same";
    const others = new Map(plan.packages.map((one) => [`${one.kind} ${one.name}`, one.sha256]));
    return (one) => {
      const sha256 = others.get(`${one.kind} ${one.name}`);
      return sha256 === undefined ? "own" : sha256 === one.sha256 ? "same" : "moved";
    };
  };
  const legend = (entries) => make("ul", { class: "legend" }, ...entries.map(([kind, text]) =>
    make("li", null, make("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), make("span", null, text))));

  // ---- treemap (Bruls, Huizing, van Wijk: squarified treemaps)
  const squarify = (items, width, height) => {
    const scale = (width * height) / sum(items, (item) => item.bytes);
    const rest = items.map((item) => ({ item, area: item.bytes * scale }));
    const places = [];
    let [x, y, w, h] = [0, 0, width, height];
    const worst = (row, total, side) => {
      const areas = row.map((one) => one.area);
      const square = (total / side) ** 2;
      return Math.max((Math.max(...areas)) / square, square / Math.min(...areas));
    };
    while (rest.length > 0) {
      const side = Math.min(w, h);
      const row = [rest.shift()];
      let total = row[0].area;
      while (rest.length > 0) {
        const next = total + rest[0].area;
        if (worst([...row, rest[0]], next, side) > worst(row, total, side)) break;
        total = next;
        row.push(rest.shift());
      }
      const depth = total / side;
      let along = 0;
      for (const { item, area } of row) {
        const length = area / depth;
        places.push(w >= h ? { item, x, y: y + along, w: depth, h: length } : { item, x: x + along, y, w: length, h: depth });
        along += length;
      }
      if (w >= h) { x += depth; w -= depth; } else { y += depth; h -= depth; }
    }
    return places;
  };

  const SMALLEST = 26; // in pixels: what is smaller on a side cannot be pointed at

  const treemap = (place, plan, otherPlan) => {
    const kind = kindOf(otherPlan);
    const known = plan.packages.filter((one) => one.bytes > 0).sort((a, b) => b.bytes - a.bytes);
    const total = sum(known, (one) => one.bytes);
    if (known.length === 0) return;
    const unknown = plan.packages.length - known.length;
    if (otherPlan) {
      const entry = (name) => {
        const ours = known.filter((one) => kind(one) === name);
        return ours.length === 0 ? null : [name, `${kinds[name](other)}: ${plural(ours.length, "package")}, ${size(sum(ours, (one) => one.bytes))}`];
      };
      place.append(legend([...["same", "moved", "own"].map(entry).filter(Boolean), ["mixed", "small ones of more than one kind"]]));
    }
    const mixed = place.querySelector(".legend .mixed")?.parentElement;
    const map = make("div", { class: "treemap", role: "group", "aria-label": "Packages by size of their archive", "aria-describedby": "treemap-hint" });
    const hint = make("p", { id: "treemap-hint" },
      "The area is the size of the archive. Point at a package, or go through them with the arrow keys; Enter holds one. The table below holds the same.");
    const panel = make("div", { class: "panel", role: "status" }, hint.cloneNode(true));
    panel.firstChild.removeAttribute("id");
    hint.hidden = true;
    place.append(hint, map, panel);
    if (unknown > 0) place.append(make("p", null, `${plural(unknown, "package")} of unknown size: only in the table.`));

    let cells = [];
    let held = null;
    const describe = (item) => {
      if (item.others) {
        const names = item.others.map((one) => one.name).join(", ");
        return [
          make("p", { class: "name" }, item.name),
          make("p", null, `${size(item.bytes)} together, ${percent(item.bytes / total)} of the download`),
          make("p", null, names),
        ];
      }
      const build = item.kind === "pypi" ? "from PyPI" : item.build;
      return [
        make("p", { class: "name" }, `${item.name} `, make("small", null, `${item.version} ${build ?? ""}`)),
        make("p", null, `${size(item.bytes)}, ${percent(item.bytes / total)} of the download; layer ${item.layer}`),
        make("p", null, otherPlan ? `${kinds[kind(item)](other)}; ` : "", make("small", null, item.sha256)),
      ];
    };
    const show = (item) => panel.replaceChildren(...(item ? describe(item) : []));
    const hold = (cell) => {
      held = held === cell ? null : cell;
      cells.forEach((one) => one.element.setAttribute("aria-pressed", String(one === held)));
      show(cell.item);
    };
    const enter = (cell) => {
      cells.forEach((one) => { one.element.tabIndex = one === cell ? 0 : -1; });
      show(cell.item);
    };
    const neighbour = (from, [dx, dy]) => {
      const centre = (one) => [one.x + one.w / 2, one.y + one.h / 2];
      const [x, y] = centre(from);
      let best = null;
      for (const cell of cells) {
        const [cx, cy] = centre(cell);
        const ahead = (cx - x) * dx + (cy - y) * dy;
        const aside = Math.abs((cx - x) * dy) + Math.abs((cy - y) * dx);
        if (cell === from || ahead <= 1) continue;
        const cost = ahead + 2 * aside;
        if (!best || cost < best.cost) best = { cell, cost };
      }
      return best?.cell;
    };
    const keys = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

    const draw = () => {
      const [width, height] = [map.clientWidth, map.clientHeight];
      if (width === 0 || height === 0) return;
      // The smallest stand together, so that each cell can be seen and pointed at.
      let items = known;
      for (let keep = known.length; keep > 0; keep -= 1) {
        const rest = known.slice(keep);
        items = rest.length < 2 ? known : [...known.slice(0, keep), {
          name: `${rest.length} smaller packages`, bytes: sum(rest, (one) => one.bytes), others: rest,
        }];
        items = [...items].sort((a, b) => b.bytes - a.bytes);
        const places = squarify(items, width, height);
        if (places.every(({ w, h }) => Math.min(w, h) >= SMALLEST) || keep === 1) break;
      }
      const focused = cells.find((cell) => cell.element === document.activeElement)?.item.name;
      held = null;
      const squares = squarify(items, width, height);
      cells = squares.map((cell, index) => {
        const { item, x, y, w, h } = cell;
        const share = `${size(item.bytes)}, ${percent(item.bytes / total)}`;
        const said = item.others ? "" : `, ${item.version}`;
        const element = make("button", {
          type: "button",
          class: `cell ${item.others ? groupKind(item.others) : kind(item)} ${w > 260 && h > 130 ? "big" : w < 90 || h < 46 ? "small" : ""} ${h > 84 ? "tall" : ""}`,
          // The larger the darker, so that neighbours stay apart.
          style: `--tone:${(0.15 * (1 - index / squares.length)).toFixed(3)};left:${(100 * x) / width}%;top:${(100 * y) / height}%;width:${(100 * w) / width}%;height:${(100 * h) / height}%`,
          "aria-label": `${item.name}${said}: ${share}`,
          "aria-pressed": "false",
          tabindex: index === 0 ? "0" : "-1",
        });
        if (w > 44 && h > 26) element.append(make("span", { class: "name" }, item.others && w < 260 ? `+ ${item.others.length}` : item.name));
        if (w > 84 && h > 52) element.append(make("span", null, size(item.bytes)));
        const made = { ...cell, element };
        element.addEventListener("focus", () => enter(made));
        element.addEventListener("pointerenter", () => show(item));
        element.addEventListener("pointerleave", () => { if (held) show(held.item); });
        element.addEventListener("click", () => hold(made));
        element.addEventListener("keydown", (event) => {
          const next = event.key === "Home" ? cells[0] : event.key === "End" ? cells[cells.length - 1]
            : keys[event.key] ? neighbour(made, keys[event.key]) : undefined;
          if (!next) return;
          event.preventDefault();
          next.element.focus();
        });
        return made;
      });
      if (mixed) mixed.hidden = !cells.some((cell) => cell.element.classList.contains("mixed"));
      map.replaceChildren(...cells.map((cell) => cell.element));
      cells.find((cell) => cell.item.name === focused)?.element.focus();
    };
    const groupKind = (group) => {
      const all = new Set(group.map(kind));
      return all.size === 1 ? [...all][0] : "mixed";
    };
    let drawn = 0;
    new ResizeObserver(() => {
      if (map.clientWidth === drawn) return;
      drawn = map.clientWidth;
      draw();
    }).observe(map);
    draw();
  };

  // ---- layers
  const holds = (layer) => {
    if (layer.packages.length > 3) return `${layer.packages.length} packages: ${layer.packages.slice(0, 2).join(", ")}, …`;
    if (layer.packages.length > 0) return layer.packages.join(", ");
    const by = (layer.created_by ?? "").replace("pixi-image: ", "");
    return by.length > 110 ? `${by.slice(0, 110)}…` : by || "what is not said";
  };

  const layerKinds = {
    same: (name) => `the same layer as in ${name}, stored and sent once`,
    moved: () => "the same packages in other bytes",
    own: (name) => `not in ${name}`,
  };
  const layerKindOf = (image, plan, otherImage, otherPlan) => {
    if (!otherImage) return () => "own";
    const digests = new Set(otherImage.layers.map((layer) => layer.digest));
    const kind = kindOf(otherPlan);
    const same = new Set((otherPlan && plan ? plan.packages : []).filter((one) => kind(one) === "same").map((one) => one.name));
    return (layer) => {
      if (digests.has(layer.digest)) return "same";
      return layer.packages.length > 0 && layer.packages.every((name) => same.has(name)) ? "moved" : "own";
    };
  };

  const stack = (title, image, kind, largest, width) => {
    const total = sum(image.layers, (layer) => layer.bytes);
    const order = ["same", "moved", "own"];
    const sorted = [...image.layers].sort((a, b) => order.indexOf(kind(a)) - order.indexOf(kind(b)) || b.bytes - a.bytes);
    const bar = make("div", { class: "stack", role: "img", "aria-label": `${title}: ${plural(image.layers.length, "layer")}, ${size(total)}`, style: `width:${(100 * total) / largest}%` });
    // Those that would be hairlines stand together, by kind.
    const isSmall = (layer) => layer.bytes / largest < 0.008;
    const parts = order.flatMap((name) => {
      const ours = sorted.filter((layer) => kind(layer) === name);
      const [small, large] = [ours.filter(isSmall), ours.filter((layer) => !isSmall(layer))];
      const part = (text, bytes) => ({ name, text, bytes });
      const single = (layer) => part(holds(layer), layer.bytes);
      const together = part(`${small.length} small layers`, sum(small, (layer) => layer.bytes));
      return [...large.map(single), ...(small.length > 1 ? [together] : small.map(single))];
    });
    for (const { name, text, bytes } of parts) {
      const part = make("div", { class: name, style: `flex-grow:${bytes}`, title: `${text}: ${size(bytes)}` });
      if ((width * bytes) / largest > 96) {
        part.classList.add("wide");
        part.append(make("span", null, text), make("span", null, size(bytes)));
      }
      bar.append(part);
    }
    return make("div", { class: "stack-of" }, make("h3", null, `${title} `, make("small", null, `${plural(image.layers.length, "layer")}, ${size(total)}`)), bar);
  };

  const layerTable = (image, kind, compared) => {
    const head = (text, number) => make("th", { scope: "col", class: number ? "number" : undefined }, text);
    const rows = image.layers.map((layer, index) => make("tr", null,
      make("td", { "data-value": String(index + 1) }, String(index + 1)),
      make("th", { scope: "row" }, holds(layer), make("small", null, ` ${short(layer.digest)}`)),
      compared ? make("td", null, layerKinds[kind(layer)](compared)) : "",
      make("td", { class: "number", "data-value": String(layer.bytes) }, size(layer.bytes))));
    const table = make("table", null,
      make("thead", null, make("tr", null, head("Layer"), head("Holds"), compared ? head("Compared") : "", head("Size", true))),
      make("tbody", null, ...rows));
    sortable(table);
    return table;
  };

  const layers = (place) => {
    const [image, otherImage] = [data.docker, data["other-docker"]];
    const [plan, otherPlan] = [data.plan, data["other-plan"]];
    const sentences = [];
    if (image && otherImage) {
      const kind = layerKindOf(image, plan, otherImage, otherPlan);
      const back = layerKindOf(otherImage, otherPlan, image, plan);
      const of = (name) => image.layers.filter((layer) => kind(layer) === name);
      const [same, moved, own] = ["same", "moved", "own"].map(of);
      const bytes = (list) => size(sum(list, (layer) => layer.bytes));
      sentences.push(`${plural(same.length, "layer")} of ${image.layers.length} (${bytes(same)}) ${same.length === 1 ? "is" : "are"} the same in ${environment} and ${other}: whoever has one image gets ${same.length === 1 ? "it" : "them"} for nothing with the other.`);
      if (moved.length > 0) {
        sentences.push(`${plural(moved.length, "more layer")} (${bytes(moved)}) ${moved.length === 1 ? "holds" : "hold"} the same packages in other bytes: they share a layer with others there, fit another Python, or another version built them.`);
      }
      const largest = Math.max(sum(image.layers, (l) => l.bytes), sum(otherImage.layers, (l) => l.bytes));
      const used = new Set([...image.layers.map(kind), ...otherImage.layers.map(back)]);
      place.append(make("p", { class: "lead" }, sentences.join(" ")));
      place.append(legend(["same", "moved", "own"].filter((name) => used.has(name)).map((name) =>
        [name, name === "own" ? "only in one of the two" : layerKinds[name](name === "same" ? "the other" : "")])));
      place.append(stack(environment, image, kind, largest, place.clientWidth), stack(other, otherImage, back, largest, place.clientWidth));
      place.append(make("details", null, make("summary", null, `The layers of ${environment} as a table`), layerTable(image, kind, other)));
      place.append(make("details", null, make("summary", null, `The layers of ${other} as a table`), layerTable(otherImage, back, environment)));
      return;
    }
    const one = image ?? otherImage;
    if (one) {
      const name = image ? environment : other;
      const total = sum(one.layers, (layer) => layer.bytes);
      place.append(make("p", { class: "lead" }, `${plural(one.layers.length, "layer")}, ${size(total)}. What the images of ${environment} and ${other} share by digest shows here when both are built.`));
      place.append(stack(name, one, () => "same", total, place.clientWidth));
      place.append(make("details", null, make("summary", null, `The layers of ${name} as a table`), layerTable(one, () => "same", null)));
    }
    if (plan && otherPlan) {
      const kind = kindOf(otherPlan);
      const same = plan.packages.filter((entry) => kind(entry) === "same");
      place.append(make("p", null, `By the lock, ${same.length} of the ${plural(plan.packages.length, "package")} of ${environment} (${size(sum(same, (entry) => entry.bytes))}) are the same in ${other}.`));
    }
  };

  // ---- both formats side by side
  const facts = (entries) => make("dl", null, ...entries.filter(([, value]) => value !== null && value !== undefined && value !== "" && !(Array.isArray(value) && value.length === 0))
    .flatMap(([name, value]) => [make("dt", null, name), make("dd", null, Array.isArray(value) ? make("ul", null, ...value.map((line) => make("li", null, line))) : value)]));
  const labels = (image) => Object.entries(image.labels ?? {}).map(([name, value]) => {
    const line = document.createDocumentFragment();
    line.append(`${name.replace("org.opencontainers.image.", "")} `, code(value));
    return line;
  });
  const code = (text) => make("code", null, text);

  const images = (place) => {
    const { plan, docker, apptainer } = data;
    if (!docker && !apptainer) return;
    const bars = [["Packages to download", plan?.download_bytes], ["Docker image", docker?.bytes], ["Apptainer image", apptainer?.bytes]].filter(([, bytes]) => bytes > 0);
    const largest = Math.max(...bars.map(([, bytes]) => bytes));
    place.append(make("dl", { class: "scale" }, ...bars.map(([name, bytes]) => make("div", { class: "scale-row" },
      make("dt", null, name),
      make("dd", { class: "bar", style: `--part:${bytes / largest}`, "aria-hidden": "true" }),
      make("dd", { class: "value" }, size(bytes))))));
    const cards = make("div", { class: "cards" });
    if (docker) {
      const packed = [...new Set(docker.layers.map((layer) => layer.compression))].join(" and ");
      cards.append(make("article", { class: "card" }, make("h3", null, "Docker ", make("small", null, "OCI archive")), facts([
        ["File", code(docker.path)],
        ["Size", size(docker.bytes)],
        ["Made of", `${plural(docker.layers.length, "layer")}, each packed by itself`],
        ["Compression", packed],
        ["Manifest", docker.digest ? code(docker.digest) : ""],
        ["Configuration", code(docker.config.digest)],
        ["Platform", docker.platform],
        ["Called", docker.names],
        ["Entrypoint", docker.entrypoint.length > 0 ? code(docker.entrypoint.join(" ")) : ""],
        ["Variables", plural(docker.env.length, "variable") + ", seen by docker exec, too"],
        ["Made", docker.created],
        ["Labels", labels(docker)],
      ])));
    }
    if (apptainer) {
      const objects = apptainer.objects.map((object) => `${object.file_system ?? (object.name || object.what)}: ${size(object.bytes)}`);
      cards.append(make("article", { class: "card" }, make("h3", null, "Apptainer ", make("small", null, "SIF")), facts([
        ["File", code(apptainer.path)],
        ["Size", size(apptainer.bytes)],
        ["Made of", objects],
        ["Compression", apptainer.compression ? `${apptainer.compression}, in blocks of ${size(apptainer.block_bytes)}` : "not known"],
        ["File's digest", code(apptainer.digest)],
        ["Platform", `linux/${apptainer.architecture}`],
        ["Signatures", apptainer.signatures === 0 ? "none" : `${apptainer.signatures}; \`apptainer verify\` checks them`],
        ["Labels", labels(apptainer)],
      ])));
    }
    place.append(cards);
  };

  const draw = (id, drawing) => {
    const place = document.getElementById(id);
    if (!place) return;
    try {
      drawing(place);
    } catch (error) {
      place.replaceChildren(make("p", { class: "absent" }, `This cannot be drawn: ${error.message}. The text below holds the same.`));
    }
  };
  theme();
  document.querySelectorAll("table.sortable").forEach(sortable);
  if (data.plan) draw("treemap-place", (place) => treemap(place, data.plan, data["other-plan"]));
  draw("layers-place", layers);
  draw("images-place", images);
  const written = new Date(document.lastModified);
  if (!Number.isNaN(written.getTime())) document.getElementById("written").textContent = ` on ${written.toLocaleString("en-GB", { dateStyle: "long", timeStyle: "short" })}`;

  // Tables that are folded are printed, too.
  addEventListener("beforeprint", () => document.querySelectorAll("details:not([open]):has(table)").forEach((one) => { one.open = true; one.dataset.printed = ""; }));
  addEventListener("afterprint", () => document.querySelectorAll("details[data-printed]").forEach((one) => { one.open = false; delete one.dataset.printed; }));
})();
