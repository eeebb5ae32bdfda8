"use strict";
(() => {
  /* A stream that has missed a beat, and half of the time to the next, is dead: whoever was cut off has another one within
     two beats, and not all at once. */
  const PATIENCE_BEATS = 1.4 + 0.2 * Math.random();
  /* One that does not open is given longer than the longest `retry:` before another is tried. */
  const OPENING_MS = 90000, LOOK_MS = 5000, STALE_AFTER_MS = 60000, JITTER_MS = 3000, RETRY_MAX_MS = 60000;
  const STEPS = { investigating: "Investigating", identified: "Identified", monitoring: "Monitoring", resolved: "Resolved" };
  const STATES = {
    operational: ["ok", "Operational"], under_maintenance: ["care", "Under maintenance"],
    degraded_performance: ["minor", "Degraded performance"], partial_outage: ["major", "Partial outage"],
    major_outage: ["critical", "Major outage"],
  };
  const IMPACTS = {
    none: ["note", "No impact"], minor: ["minor", "Minor impact"], major: ["major", "Major impact"],
    critical: ["critical", "Critical impact"],
  };
  const INDICATORS = { none: "ok", minor: "minor", major: "major", critical: "critical", maintenance: "care" };
  const byId = (id) => document.getElementById(id);
  const main = byId("main"), live = byId("live"), freshness = byId("freshness"), announce = byId("announce");
  if (!main || !window.EventSource) return;

  /* Version vectors: "replica:seq,replica:seq". */
  const parse = (text) => {
    const vector = new Map();
    for (const part of (text || "").split(",")) {
      const colon = part.lastIndexOf(":");
      if (colon > 0) vector.set(part.slice(0, colon), Number(part.slice(colon + 1)));
    }
    return vector;
  };
  const covers = (a, b) => [...b].every(([replica, seq]) => (a.get(replica) || 0) >= seq);
  const merge = (a, b) => { for (const [replica, seq] of b) a.set(replica, Math.max(seq, a.get(replica) || 0)); };
  const print = (vector) => [...vector].sort(([a], [b]) => (a < b ? -1 : 1)).map((entry) => entry.join(":")).join(",");

  /* Times, always UTC; the visitor's own time is in the tooltip. */
  const pad = (number) => String(number).padStart(2, "0");
  const clock = (date) => [date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds()].map(pad).join(":");
  const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");
  const short = (date) => date.getUTCDate() + " " + MONTHS[date.getUTCMonth()] + ", " + clock(date).slice(0, 5) + " UTC";
  const tell = (time, text, date) => {
    time.dateTime = date.toISOString();
    time.textContent = text;
    time.title = date.toLocaleString() + " your time";
  };
  const localise = () => {
    for (const time of document.querySelectorAll("time[datetime*=T]")) {
      const date = new Date(time.dateTime);
      if (!isNaN(date)) time.title = date.toLocaleString() + " your time";
    }
  };

  let seen = parse(main.dataset.version);      /* what this page shows */
  let updatedAt = new Date(main.dataset.rendered);
  let heardAt = Date.now(), state = "connecting", source = null, wanted = null, refetchTimer = 0, tries = 0;
  /* The stream beats at least this often when nothing else is sent; it says how often. */
  let beatMs = 55000, triedAt = 0;
  /* Another edge's name, that this stream was led to: a browser comes back there, even when nobody is there any more. */
  let isLed = false, backTimer = 0;

  const show = (next) => {
    state = next;
    const time = document.createElement("time");
    const silent = Date.now() - heardAt;
    if (next === "live") {
      tell(time, clock(updatedAt) + " UTC", updatedAt);
      freshness.replaceChildren("Live, updated ", time);
    } else if (next === "connecting" || silent < STALE_AFTER_MS) {
      tell(time, clock(updatedAt) + " UTC", updatedAt);
      freshness.replaceChildren(next === "connecting" ? "Updated " : "Reconnecting, updated ", time);
    } else {
      const since = new Date(heardAt);
      tell(time, clock(since) + " UTC", since);
      freshness.replaceChildren("Not live since ", time);
      next = "stale";
    }
    live.dataset.state = next;
  };

  const tone = (element, name) => {
    element.dataset.tone = name;
    const use = element.querySelector("use");
    if (use) use.setAttribute("href", "#i-" + name);
  };
  const flash = (element) => {
    element.classList.remove("fresh");
    void element.offsetWidth;
    element.classList.add("fresh");
  };
  const shape = (id) => byId(id).content.firstElementChild.cloneNode(true);
  const rows = () => [...byId("components").children];
  const rowOf = (slug) => rows().find((row) => row.dataset.slug === slug);
  /* Slugs and names may change, ids do not. */
  const rowOfId = (id) => rows().find((row) => row.dataset.id === id);

  const setStatus = (row, status) => {
    const [name, label] = STATES[status] || [];
    if (!name || row.dataset.status === status) return;
    row.dataset.status = status;
    tone(row, name);
    row.querySelector(".label").textContent = label;
    flash(row);
  };
  const applyComponent = (component) => {
    let row = rowOfId(component.id);
    if (!row) {
      row = shape("component-shape");
      row.dataset.id = component.id;
      const empty = byId("no-components");
      if (empty) empty.remove();
    }
    row.dataset.slug = component.slug;
    row.querySelector(".name").textContent = component.name;
    if (component.description !== undefined) {
      const about = row.querySelector(".about");
      about.textContent = component.description;
      about.hidden = !component.description;
    }
    row.dataset.position = component.position;
    const after = rows().find((other) => other !== row && Number(other.dataset.position) > component.position);
    if (!row.isConnected || (after ? row.nextElementSibling !== after : row.nextElementSibling)) {
      byId("components").insertBefore(row, after || null);
    }
    setStatus(row, component.status);
  };

  const applyIncident = (incident, updatesLeftOut) => {
    let article = byId("incident-" + incident.id);
    if (!article) {
      article = shape("incident-shape");
      article.id = "incident-" + incident.id;
      byId("active-title").after(article);
    }
    const title = article.querySelector(".title");
    title.textContent = incident.title;
    title.href = "#incident-" + incident.id;
    const [impactTone, impact] = IMPACTS[incident.impact] || IMPACTS.none;
    const over = incident.status === "resolved" && article.classList.contains("card");
    tone(article, over ? "ok" : impactTone);
    article.querySelector(".impact .label").textContent = over ? "Resolved" : impact;
    const slugs = Object.keys(incident.components || {});
    const affected = article.querySelector(".affected");
    const names = rows().filter((row) => slugs.includes(row.dataset.slug))
      .map((row) => row.querySelector(".name").textContent);
    affected.hidden = names.length === 0;
    affected.textContent = "Affects " + names.join(", ");
    const updates = [...incident.updates].sort((a, b) => new Date(b.created_at) - new Date(a.created_at));
    const blank = byId("incident-shape").content.querySelector(".updates li");
    const list = article.querySelector(".updates");
    const oldest = updates.length ? new Date(updates[updates.length - 1].created_at) : Infinity;
    const kept = [...list.children]
      .filter((item) => updatesLeftOut && new Date(item.querySelector("time").dateTime) < oldest);
    list.replaceChildren(...updates.map((update) => {
      const item = blank.cloneNode(true), date = new Date(update.created_at);
      item.querySelector(".step").textContent = STEPS[update.status] || update.status;
      item.querySelector(".message").textContent = update.message;
      tell(item.querySelector("time"), short(date), date);
      return item;
    }), ...kept);
    const still = document.querySelector('.still a[href="#' + CSS.escape(article.id) + '"]');
    if (still) still.nextSibling.textContent = incident.status === "resolved" ? " is resolved." : " is still active.";
    byId("active").hidden = !byId("active").querySelector("article");
    flash(article);
    announce.textContent = incident.title + ": " + (STEPS[incident.status] || incident.status) +
      ". " + (updates.length ? updates[0].message : "");
  };

  const removeIncident = (id) => {
    const article = byId("incident-" + id);
    if (article) article.remove();
    const still = document.querySelector('.still a[href="#incident-' + CSS.escape(id) + '"]');
    if (still) still.parentElement.remove();
    byId("active").hidden = !byId("active").querySelector("article");
  };

  const applyOverall = (status) => {
    const name = INDICATORS[status.indicator];
    if (!name) return;
    tone(byId("overall"), name);
    byId("headline").textContent = status.description;
    document.title = status.description + " · " + document.querySelector("h1").textContent + " status";
  };
  const tally = () => {
    const all = rows().length, troubled = rows().filter((row) => row.dataset.status !== "operational").length;
    byId("tally").textContent = all === 0 ? "" :
      all === 1 ? "The one component is " + (troubled ? "affected." : "operational.") :
      troubled ? troubled + " of " + all + " components affected." : "All " + all + " components are operational.";
  };

  /* Reads the whole page again: after a gap, or when an event cannot be applied to what is shown. Spread over some
     seconds, because everyone who watches may have to. */
  const refetch = (version) => {
    if (version) { wanted = wanted || new Map(); merge(wanted, version); }
    if (refetchTimer) return;
    const backOff = tries ? Math.min(RETRY_MAX_MS, 1000 * 2 ** tries) : 0;
    refetchTimer = setTimeout(async () => {
      try {
        const fields = wanted ? { "Pharos-Min-Version": print(wanted) } : {};
        const response = await fetch("./", { headers: fields, cache: "no-cache" });
        if (!response.ok) throw new Error(String(response.status));
        const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
        const next = fresh.getElementById("main"), version = parse(next.dataset.version);
        if (wanted && !covers(version, wanted)) throw new Error("older than the event");
        if (!covers(version, seen)) throw new Error("older than what is shown");
        main.replaceChildren(...next.childNodes);
        document.title = fresh.title;
        document.querySelector("h1").textContent = fresh.querySelector("h1").textContent;
        seen = version;
        wanted = null;
        tries = 0;
        updatedAt = new Date(next.dataset.rendered);
        refetchTimer = 0;
        localise();
        show(state);
      } catch {
        tries += 1;
        refetchTimer = 0;
        refetch(null);
      }
    }, backOff + Math.random() * JITTER_MS);
  };

  const heard = (event) => {
    heardAt = Date.now();
    if (event && event.origin) isLed = event.origin !== location.origin;
    if (state !== "live") show("live");
  };
  const receive = (event) => {
    heard(event);
    let data;
    try { data = JSON.parse(event.data); } catch { return refetch(null); }
    const version = parse(data.version);
    if (covers(seen, version)) return;
    /* What has happened is more than an event can say. */
    if (data.truncated) return refetch(version);
    try {
      if (data.component) applyComponent(data.component);
      for (const [slug, status] of Object.entries(data.component_statuses || {})) {
        const row = rowOf(slug);
        if (!row) throw new Error("unknown component");
        setStatus(row, status);
      }
      if (data.incident) applyIncident(data.incident, data.updates_left_out);
      if (data.removed_incident) removeIncident(data.removed_incident);
      if (data.components) {
        const ids = new Set(data.components.map((component) => component.id));
        for (const row of rows()) if (!ids.has(row.dataset.id)) row.remove();
        if (data.descriptions_left_out && rows().length < ids.size) throw new Error("new ones need theirs");
        data.components.forEach(applyComponent);
      }
      if (data.name) document.querySelector("h1").textContent = data.name;
      if (data.status) applyOverall(data.status);
      tally();
    } catch {
      return refetch(version);
    }
    merge(seen, version);
    updatedAt = new Date();
    show("live");
  };
  const gap = (event) => {
    heard(event);
    let version = null, reset = false;
    try {
      const data = JSON.parse(event.data);
      [version, reset] = [parse(data.version), data.reset === true];
    } catch { /* a gap without a version is still a gap */ }
    if (reset) {
      /* The page was put back to an older state. What it has lost can be had of nobody any more: nothing here may
         wait for it, and whatever comes takes the place of what is shown. */
      [seen, wanted, tries] = [new Map(), null, 0];
      announce.textContent = "";
      clearTimeout(refetchTimer);
      refetchTimer = 0;
    }
    refetch(version);
  };

  const beat = (event) => {
    heard(event);
    try {
      const everyMs = JSON.parse(event.data).every_ms;
      if (everyMs > 0) beatMs = everyMs;
    } catch { /* it is a sign of life without it */ }
  };

  const connect = () => {
    if (source) source.close();
    triedAt = Date.now();
    clearTimeout(backTimer);
    isLed = false;
    source = new EventSource("events?last_event_id=" + encodeURIComponent(print(seen)));
    source.onopen = () => heard();
    source.onerror = () => {
      show("reconnecting");
      if (isLed) {
        /* To where it was led from, after as long as a stream is usually told to wait. */
        source.close();
        clearTimeout(backTimer);
        backTimer = setTimeout(connect, 1000 + Math.random() * 2000);
        return;
      }
      /* A browser gives up for good after a permanent error; we do not. */
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, 15000 + Math.random() * 30000);
    };
    for (const kind of ["incident", "component", "page"]) source.addEventListener(kind, receive);
    source.addEventListener("gap", gap);
    source.addEventListener("beat", beat);
  };

  const look = () => {
    const silenceMs = PATIENCE_BEATS * beatMs, isLive = state === "live";
    const patienceMs = isLive ? silenceMs : Math.max(silenceMs, OPENING_MS);
    if (Date.now() - Math.max(heardAt, triedAt) > patienceMs) {
      show("reconnecting");
      connect();
    } else if (!isLive) show(state);
    setTimeout(look, Math.min(LOOK_MS, beatMs / 8));
  };
  addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
  addEventListener("pagehide", () => { if (source) source.close(); });
  localise();
  connect();
  setTimeout(look, LOOK_MS);
})();
