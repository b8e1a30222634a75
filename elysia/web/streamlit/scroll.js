export default function ({ data, parentElement }) {
  const last = () => [...document.querySelectorAll('[data-testid="stChatMessage"]')].at(-1);
  const show = () => last()?.scrollIntoView({ block: "end" });
  const near = () => (last()?.getBoundingClientRect().bottom ?? 0) < window.innerHeight + 260;
  if (parentElement.elysia !== data.version) {
    parentElement.elysia = data.version;
    for (const wait of [0, 200, 600]) setTimeout(show, wait);
  }
  if (!data.busy) return;
  const watch = setInterval(() => near() && show(), 250);
  return () => clearInterval(watch);
}
