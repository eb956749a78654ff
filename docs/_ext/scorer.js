// Order of search results: guides before the reference, except for an exact name that is no plain word (NTXentLoss).
// A constant in capitals (PRETRAINED) is one.
var Scorer = {
  score: ([docname, title, anchor, descr, score, filename, kind]) => {
    if (/^(tutorial|how-to\/|concepts\/)/.test(docname)) return score + 100;
    const name = title.split(".").pop();
    return kind === "object" && score >= 50 && /[a-z][A-Z]|[A-Z]{2}.*[a-z]|_/.test(name) ? score + 200 : score;
  },
  objNameMatch: 50,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
