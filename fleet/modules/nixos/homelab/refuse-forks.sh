# Accepts only jobs of the repository's own people on this runner. The runner calls it before a job's first step
# (ACTIONS_RUNNER_HOOK_JOB_STARTED); a status other than 0 ends the job. A fork can change its workflows in a pull
# request, so the workflows cannot keep it off this machine.
head=
case ${GITHUB_EVENT_NAME:-} in
push | schedule | workflow_dispatch) exit 0 ;;
pull_request)
    head=$(jq --raw-output '.pull_request.head.repo.full_name // ""' "$GITHUB_EVENT_PATH")
    repository=$(jq --raw-output '.repository.full_name // ""' "$GITHUB_EVENT_PATH")
    [ -z "$head" ] || [ "$head" != "$repository" ] || exit 0
    ;;
esac
echo "::error::this runner takes no job of the event ${GITHUB_EVENT_NAME:-unknown}${GITHUB_EVENT_NAME:+ of ${head:-nobody known}}"
exit 1
