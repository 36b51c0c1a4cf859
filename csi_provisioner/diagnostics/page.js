const main = document.querySelector("main");
const live = document.querySelector("#live");
async function look() {
  try {
    const answer = await fetch("statusz/data", { headers: { Accept: "text/html" } });
    if (!answer.ok) throw answer.status;
    main.innerHTML = await answer.text();
    live.textContent = "· live";
  } catch {
    live.textContent = `· does not answer since ${new Date().toLocaleTimeString()}`;
    return setTimeout(look, 30000);
  }
  setTimeout(look, 5000);
}
setTimeout(look, 5000);
