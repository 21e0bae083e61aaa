"""What a browser shows and says of a page: contrast as rendered, the accessibility tree, and where the Tab key leads.

Measured in Chromium itself: colours as they are computed, with all that lies under them, and the tree that assistive technology reads.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from playwright.async_api import Page

# WCAG 2.2: 1.4.3 (text, large text) and 1.4.11 (graphics, and the edges of what can be filled in).
_CONTRAST = """
() => {
  const parse = (text) => {
    const n = text.match(/[\\d.]+/g);
    return n ? [+n[0], +n[1], +n[2], n.length > 3 ? +n[3] : 1] : [0, 0, 0, 0];
  };
  const over = (top, below) => {
    const a = top[3] + below[3] * (1 - top[3]);
    if (!a) return [0, 0, 0, 0];
    return [0, 1, 2].map((i) => (top[i] * top[3] + below[i] * below[3] * (1 - top[3])) / a).concat(a);
  };
  const opacity = (el) => { let o = 1; for (let e = el; e; e = e.parentElement) o *= +getComputedStyle(e).opacity; return o; };
  const ground = (el) => {
    let found = [0, 0, 0, 0];
    for (let e = el; e && found[3] < 1; e = e.parentElement) found = over(found, parse(getComputedStyle(e).backgroundColor));
    const base = matchMedia('(prefers-color-scheme: dark)').matches ? [0, 0, 0, 1] : [255, 255, 255, 1];
    return over(found, base);
  };
  const light = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const found = [];
  const measure = (el, colour, under, least, what) => {
    const c = parse(colour); c[3] *= opacity(el);
    found.push({what, least, ratio: ratio(over(c, under), under), colour, under: under.map(Math.round).join(' ')});
  };
  const seen = (el) => {
    const style = getComputedStyle(el);
    return el.getClientRects().length && style.visibility === 'visible' && !el.closest('.hidden, .skip');
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    const el = node.parentElement;
    if (!node.data.trim() || !el || /^(TITLE|DESC|SCRIPT|STYLE|OPTION)$/i.test(el.tagName) || !seen(el)) continue;
    const style = getComputedStyle(el), size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700) ? 3 : 4.5;
    const colour = el instanceof SVGElement ? style.fill : style.color;
    const what = `${el.tagName.toLowerCase()}.${el.getAttribute('class') || ''} ${node.data.trim().slice(0, 40)}`;
    measure(el, colour, ground(el), least, what);
    const row = el.closest('tbody tr');
    if (row) {  // as under the mouse
      row.style.background = 'var(--sunk)';
      measure(el, colour, ground(el), least, `${what}, row under the mouse`);
      row.style.background = '';
    }
  }
  for (const el of document.querySelectorAll('svg rect:not(.track), .mark, line.base'))
    if (seen(el)) {
      const style = getComputedStyle(el);
      const fill = el.tagName === 'line' ? style.stroke : style.fill;
      measure(el, fill, ground(el), 3, `graphic ${el.getAttribute('class')}`);
    }
  for (const el of document.querySelectorAll('input:not([type=hidden]):not([type=checkbox]):not([type=radio]), select, textarea'))
    if (seen(el)) measure(el, getComputedStyle(el).borderTopColor, ground(el.parentElement), 3, `edge of ${el.id || el.name}`);
  return found;
}
"""

_FOCUSABLE = """
() => {
  const all = [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex="0"]')];
  const groups = new Set();
  const found = all.filter((el) => {
    if (el.type === 'hidden' || el.disabled || !el.checkVisibility()) return false;
    if (el.type !== 'radio') return true;
    const first = !groups.has(el.name); groups.add(el.name);
    return first;
  });
  document.activeElement?.blur();
  found.forEach((el, place) => { el.dataset.place = place; });
  return found.map((el) => `${el.tagName.toLowerCase()} ${(el.textContent || el.name || '').trim().slice(0, 40)}`);
}
"""

_FOCUSED = """
() => {
  const el = document.activeElement;
  if (!el || el === document.body) return null;
  const style = getComputedStyle(el), box = el.getBoundingClientRect();
  const y = Math.min(Math.max(box.top + Math.min(box.height / 2, 12), 0), innerHeight - 1);
  const hit = document.elementFromPoint(box.left + Math.min(box.width / 2, 12), y);
  const radio = el.type === 'radio' ? document.querySelector(`input[type="radio"][name="${el.name}"]`) : el;
  return {
    place: radio.dataset.place === undefined ? -1 : +radio.dataset.place,
    outline: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
    seen: !!hit && (el.contains(hit) || hit.contains(el)) && box.bottom > 0 && box.top < innerHeight,
    what: `${el.tagName.toLowerCase()} ${(el.textContent || el.name || '').trim().slice(0, 40)}`,
  };
}
"""

_NAMED = {
    *("link", "button", "textbox", "searchbox", "combobox", "checkbox", "radio", "image", "table", "region"),
    *("navigation", "heading", "columnheader", "rowheader", "RootWebArea"),
}  # fmt: skip
_ONCE = ("main", "banner", "navigation", "contentinfo")


async def too_weak(page: Page) -> Sequence[str]:
    """What has less contrast than WCAG 2.2 AA asks, each with what was measured. Also where nothing was measured."""
    found = await page.evaluate(_CONTRAST)
    if not found:
        return ["nothing was measured"]
    return sorted(
        {
            f"{each['what']}: {each['ratio']:.2f} < {each['least']} ({each['colour']} on {each['under']})"
            for each in found
            if each["ratio"] < each["least"]
        }
    )


async def tree(page: Page) -> Sequence[Mapping[str, Any]]:
    """The nodes of the accessibility tree that are not ignored: {role, name, node}."""
    session = await page.context.new_cdp_session(page)
    try:
        nodes = (await session.send("Accessibility.getFullAXTree"))["nodes"]
    finally:
        await session.detach()
    return [
        {"role": each["role"]["value"], "name": each.get("name", {}).get("value", "").strip()}
        for each in nodes
        if not each["ignored"] and "role" in each
    ]


async def unsaid(page: Page, *, framed: bool = True) -> Sequence[str]:
    """What a screen reader could not say of the page; `framed`: it has the console's header, navigation and foot."""
    nodes = await tree(page)
    found = [f"a {each['role']} has no name" for each in nodes if each["role"] in _NAMED and not each["name"]]
    roles = Counter(each["role"] for each in nodes)
    found += [f"{roles[each]} {each}" for each in _ONCE if framed and roles[each] != 1]
    regions = Counter(each["name"] for each in nodes if each["role"] in ("region", "navigation"))
    found += [f"{count} regions are called {name!r}" for name, count in regions.items() if count > 1]
    if await page.evaluate("document.querySelectorAll('table').length") != roles["table"]:
        found.append("a table is none for a screen reader")
    found += await page.evaluate(
        """() => {
          const bad = [], levels = [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map((h) => +h.tagName[1]);
          levels.forEach((level, i) => { if (level > (levels[i - 1] || 0) + 1) bad.push(`h${level} after h${levels[i - 1] || 0}`); });
          const ids = [...document.querySelectorAll('[id]')].map((el) => el.id);
          ids.forEach((id, i) => { if (ids.indexOf(id) !== i) bad.push(`the id ${id} stands twice`); });
          for (const name of ['aria-labelledby', 'aria-describedby', 'for', 'list'])
            for (const el of document.querySelectorAll(`[${name}]`))
              for (const id of el.getAttribute(name).split(/\\s+/))
                if (!document.getElementById(id)) bad.push(`${name} names ${id}, which is not there`);
          for (const el of document.querySelectorAll('fieldset'))
            if (!el.querySelector('legend')?.textContent.trim()) bad.push('a group of fields has no legend');
          for (const el of document.querySelectorAll('button:not(.plain), .button, select, input:not([type=hidden])'))
            if (el.checkVisibility() && el.getBoundingClientRect().height < 16) bad.push(`${el.name || el.textContent} is too small`);
          const said = new Map();
          for (const el of document.querySelectorAll('main a[href], main button[type=submit]')) {
            const name = (el.ariaLabel || el.textContent).replace(/\\s+/g, ' ').trim();
            const given = [...(el.form?.querySelectorAll('input[type=hidden]') || [])].map((each) => each.value).join(' ');
            const to = el.getAttribute('href') || `${el.form?.getAttribute('action')} ${el.name}=${el.value} ${given}`;
            if (said.has(name) && said.get(name) !== to) bad.push(`two things are called ${name}: ${said.get(name)} and ${to}`);
            said.set(name, to);
          }
          return bad;
        }"""
    )
    return found


async def unreached(page: Page) -> Sequence[str]:
    """Where the Tab key does not lead, leads out of order, or does not show where it is."""
    places = await page.evaluate(_FOCUSABLE)
    found, last = [], -1
    visited: set[int] = set()
    for _ in range(2 * len(places) + 20):
        await page.keyboard.press("Tab")
        at = await page.evaluate(_FOCUSED)
        if at is not None and at["place"] == last:
            continue  # a date has several parts
        if at is None or at["place"] in visited:
            break
        if at["place"] < last:
            found.append(f"Tab leads back to {at['what']}")
        if not at["outline"]:
            found.append(f"the focus does not show at {at['what']}")
        if not at["seen"]:
            found.append(f"the focus is out of sight at {at['what']}")
        visited.add(at["place"])
        last = at["place"]
    return [*found, *(f"no Tab leads to {each}" for place, each in enumerate(places) if place not in visited)]
