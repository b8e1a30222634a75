export default function ({ data, parentElement }) {
  const audio = parentElement.querySelector("audio");
  const state = (parentElement.elysia ??= { begun: null, next: 0, queue: [] });
  const play = () => {
    if (state.next >= state.queue.length) return;
    audio.src = state.queue[state.next++];
    audio.play().catch(() => {});
  };
  audio.onended = audio.onerror = play;
  const fresh = state.begun !== data.begun;
  const idle = audio.ended || audio.error || !audio.getAttribute("src");
  state.queue = data.queue;
  if (fresh) { state.begun = data.begun; state.next = 0; play(); }
  else if (idle) play();
  return () => { audio.pause(); audio.removeAttribute("src"); audio.load(); };
}
