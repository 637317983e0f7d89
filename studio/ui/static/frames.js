// Gradio's loading screen has a clock that asks for its next frame in every frame, sixty times a second, and goes on
// for ever when the screen is taken away while it says "pending" (gradio 6.31; its scripts run before these). The clock
// reads performance.now in its frame: there the frame that it asks for next is cancelled, and it has ended. The watch
// for it is over with the clock, or after some frames. No setting reaches it: the screen stands before any component,
// so it is no event's show_progress.
(() => {
  let frames = 60;
  const unwatch = () => { frames = 0; delete performance.now; };
  const end = () => {
    unwatch();
    // right after the clock's frame: handles are counted up, so the one before the next is the clock's
    queueMicrotask(() => {
      const next = requestAnimationFrame(() => {});
      cancelAnimationFrame(next - 1);
      cancelAnimationFrame(next);
    });
  };
  performance.now = () => {
    if (/statustracker/.test(new Error().stack)) end();
    return Performance.prototype.now.call(performance);
  };
  const watch = () => { if (frames > 0 && (frames -= 1) > 0) requestAnimationFrame(watch); else unwatch(); };
  watch();
})();
