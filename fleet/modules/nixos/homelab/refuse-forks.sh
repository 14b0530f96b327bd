# Which jobs this runner takes: those of its repository's own people. Run by the runner before a job's first step (its
# ACTIONS_RUNNER_HOOK_JOB_STARTED); a status that is not 0 ends the job. A fork may write its own workflows in a pull
# request, so it cannot be left to ours to keep it off this machine.
head=
case ${GITHUB_EVENT_NAME:-} in
push | schedule | workflow_dispatch) exit 0 ;;
pull_request)
    head=$(jq --raw-output '.pull_request.head.repo.full_name // ""' "$GITHUB_EVENT_PATH")
    own=$(jq --raw-output '.repository.full_name // ""' "$GITHUB_EVENT_PATH")
    [ -z "$head" ] || [ "$head" != "$own" ] || exit 0
    ;;
esac
echo "::error::this runner takes no job of the event ${GITHUB_EVENT_NAME:-unknown}${GITHUB_EVENT_NAME:+ of ${head:-nobody known}}"
exit 1
