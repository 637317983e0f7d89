// Where the marks of an axis stand, and how to find a place in a column that only rises.
(() => {
  const nice = (span, count) => {
    const rough = span / Math.max(1, count), power = 10 ** Math.floor(Math.log10(rough)), share = rough / power;
    return power * (share < 1.5 ? 1 : share < 3.5 ? 2 : share < 7.5 ? 5 : 10);
  };
  // least: the smallest step; 1 on an axis of whole numbers.
  const ticks = (low, high, count, least = 0) => {
    if (!(high > low)) return [low];
    const step = Math.max(least, nice(high - low, count)), found = [];
    for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step)
      found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
    return found;
  };
  const logTicks = (low, high) => {
    const found = [];
    for (let power = Math.floor(low); power <= Math.ceil(high); power += 1) {
      for (const factor of high - low > 2.5 ? [1] : high - low > 0.8 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]) {
        const at = power + Math.log10(factor);
        if (at >= low && at <= high) found.push(at);
      }
    }
    return found.length > 1 ? found : ticks(low, high, 4);
  };
  // The end of a range that goes on growing: a round number ahead of it, so that new points seldom move the old ones.
  const ahead = (low, high) => { const step = nice(high - low || 1, 4); return Math.ceil(high / step - 1e-9) * step; };
  // A range widened to round numbers, for the same reason.
  const widened = ([low, high], count = 10) => {
    const step = nice(high - low, count);
    return [Math.floor(low / step + 1e-9) * step, Math.ceil(high / step - 1e-9) * step];
  };
  // Marks with their texts, without those that would say what the one before says.
  const labelled = (marks, text) => marks.map((at) => ({ at, text: text(at) }))
    .filter(({ text: said }, place, all) => !place || said !== all[place - 1].text);
  // Digits behind the point that tell all marks of an axis apart, the same for each.
  const decimals = (values) => {
    for (let digits = 0; digits < 6; digits += 1) {
      if (values.every((value) => Math.abs(+value.toFixed(digits) - value) <= Math.abs(value) * 1e-6 + 1e-12))
        return digits;
    }
    return 6;
  };
  // The first place whose x is not below the value; x never falls.
  const place = (column, n, value) => {
    let low = 0, high = n;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (column[middle] < value) low = middle + 1; else high = middle;
    }
    return low;
  };
  const quantile = (sorted, share) => sorted[Math.min(sorted.length - 1,
    Math.max(0, Math.round(share * (sorted.length - 1))))];
  window.studio.axis = { ticks, labelled, logTicks, ahead, widened, decimals, place, quantile };
})();
