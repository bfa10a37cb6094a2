"use strict";
// What the pages do beyond being read. All of them work without it, but for what happens by itself.

// The zone that days begin and times are shown in.
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
if (zone !== document.documentElement.dataset.zone) {
  document.cookie = `edgeveil_zone=${encodeURIComponent(zone)}; path=/; max-age=31536000; samesite=lax`;
}
function local(root) {
  if (zone === document.documentElement.dataset.zone) return;
  const form = new Intl.DateTimeFormat("sv-SE", {
    year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short",
  });
  for (const time of root.querySelectorAll("time[datetime]")) {
    const shown = form.format(new Date(time.dateTime));
    if (time.classList.contains("ago")) time.title = shown;
    else time.textContent = shown;
  }
}
local(document);

// New alerts, without a reload.
const list = document.querySelector("ul[data-live]");
if (list && window.EventSource) {
  const state = document.getElementById("live-state");
  const source = new EventSource("/live");
  let count = 0, lost = false;
  source.addEventListener("alert", (event) => {
    const holder = document.createElement("template");
    holder.innerHTML = event.data;
    const item = holder.content.firstElementChild;
    if (!item || list.querySelector(`[data-id="${CSS.escape(item.dataset.id)}"]`)) return;
    local(holder.content);
    list.prepend(item);
    while (list.children.length > 50) list.lastElementChild.remove();
    document.querySelector("[data-empty]")?.remove();
    count += 1;
    if (state) state.textContent = count === 1 ? "1 new alert." : `${count} new alerts.`;
  });
  source.addEventListener("missed", () => { if (state) state.textContent = "Some alerts came too fast; reload to see them."; });
  // Each connection ends after some minutes; only one that does not come about anew is worth a word.
  let away;
  source.onerror = () => {
    away ??= setTimeout(() => {
      lost = true;
      if (state) state.textContent = "The bridge is not reached: what you see may be old.";
    }, 5000);
    // Nobody is logged in any more: the page itself leads to the login.
    if (source.readyState === EventSource.CLOSED && state) state.textContent = "No new alerts appear here any more; reload the page.";
  };
  source.onopen = () => {
    clearTimeout(away);
    away = undefined;
    if (!state) return;
    if (lost) state.textContent = "The bridge is reached again. Alerts that came meanwhile are here too.";
    else if (count === 0) state.textContent = "New alerts appear here by themselves.";
    lost = false;
  };
  window.addEventListener("pagehide", () => source.close());
}

// What changes by itself, every ten seconds while somebody looks.
const parts = document.querySelectorAll("[data-refresh]");
if (parts.length > 0) {
  setInterval(async () => {
    if (document.visibilityState !== "visible") return;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      if (!answer.ok || answer.redirected) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelectorAll("[data-refresh]");
      document.querySelectorAll("[data-refresh]").forEach((part, n) => {
        // Nobody loses the place that they type or read in.
        if (!fresh[n] || part.contains(document.activeElement)) return;
        local(fresh[n]);
        part.replaceWith(document.adoptNode(fresh[n]));
      });
    } catch { /* The next time. */ }
  }, 10000);
}

// Galleries by arrow keys.
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const keys = document.querySelector("[data-keys]");
  if (keys && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
    const link = keys.querySelector(event.key === "ArrowLeft" ? "[rel=prev]" : "[rel=next]");
    if (link) { event.preventDefault(); link.click(); }
    return;
  }
  const links = [...document.querySelectorAll(".images a")];
  if (links.length === 0 || !event.key.startsWith("Arrow")) return;
  const at = links.indexOf(document.activeElement);
  if (at < 0 && (event.key === "ArrowUp" || event.key === "ArrowDown")) return;
  const tops = links.map((link) => link.getBoundingClientRect().top);
  const columns = Math.max(1, tops.filter((top) => Math.abs(top - tops[0]) < 2).length);
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  const to = at < 0 ? 0 : at + step;
  if (to >= 0 && to < links.length) { event.preventDefault(); links[to].focus(); }
});

// And by touch.
const whole = document.querySelector(".whole");
if (whole) {
  let from = null;
  whole.addEventListener("touchstart", (event) => { from = event.touches.length === 1 ? event.touches[0].clientX : null; }, { passive: true });
  whole.addEventListener("touchend", (event) => {
    if (from === null) return;
    const moved = event.changedTouches[0].clientX - from;
    from = null;
    if (Math.abs(moved) > 60) document.querySelector(moved > 0 ? "[data-keys] [rel=prev]" : "[data-keys] [rel=next]")?.click();
  }, { passive: true });
}
