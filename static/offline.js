// The page that is shown while the site cannot be reached.
addEventListener("online", () => location.reload());
