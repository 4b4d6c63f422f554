#!/usr/bin/env bash
# Makes the calls of the batch guide with curl and sed, and prints the name of each step that succeeded.
set -euo pipefail
batches="$ANTHROPIC_BASE_URL/v1/messages/batches"

call() {
    curl --silent --show-error --fail-with-body --max-time 20 --header "x-api-key: $ANTHROPIC_API_KEY" \
        --header 'anthropic-version: 2023-06-01' --header 'content-type: application/json' "$@"
}

field() { sed -E "s/.*\"$1\":\"([^\"]+)\".*/\1/"; }

id=$(call "$batches" --data '{"requests": [{"custom_id": "my-first-request", "params": {"model": "claude-haiku-5-5",
    "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]}}]}' | field id)
[[ $id == msgbatch_* ]] && echo create

status=$(call "$batches/$id" | sed -E 's/.*"id":"([^"]+)".*"processing_status":"([^"]+)".*/\1 \2/')
[[ $status == "$id ended" ]] && echo retrieve

url=$(call "$batches/$id" | field results_url)
[[ $(call "$url" | wc -l) == 1 ]]
[[ $(call "$url" | field custom_id) == my-first-request ]] && echo results

count=0 after='' more=true
while [[ $more == true ]]; do
    page=$(call "$batches?limit=20${after:+&after_id=$after}")
    count=$((count + $(grep -o '"type":"message_batch"' <<<"$page" | wc -l)))
    after=$(sed -E 's/.*"last_id":"([^"]+)".*/\1/' <<<"$page")
    more=$(sed -E 's/.*"has_more":(true|false).*/\1/' <<<"$page")
done
[[ $count == 46 ]] && echo list

[[ $(call --request POST "$batches/$id/cancel" | field processing_status) == ended ]] && echo cancel
[[ $(call --request DELETE "$batches/$id" | field type) == message_batch_deleted ]] && echo delete
