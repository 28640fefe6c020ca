// The datapoints with the lowest log p(x), the lowest first.

function setUpLowest() {
  if (!content.lowest || !content.lowest.points.length) return;
  byId("lowest").hidden = false;
  byId("lowest-help").textContent = `The datapoints that are least probable under the model. log p(x) in nats, with a 95% interval. ${content.lowest.how}`;
  showLowest();
}

function showLowest() {
  if (!content.lowest) return;
  byId("gallery").replaceChildren(...content.lowest.points.map((point) =>
    element("li", {}, element("button", { type: "button", onclick: () => { choose(point); byId("map").focus(); } },
      pictureOf(point, 88),
      element("b", {}, showLogProb(point)),
      element("span", { class: "quiet" }, pointName(point))))));
}
