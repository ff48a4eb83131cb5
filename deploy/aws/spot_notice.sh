#!/usr/bin/env bash
# Tell Ray when AWS announces, two minutes before, that it takes this spot instance away: no trial begins on it then.
#
#   deploy/aws/spot_notice.sh HEAD:PORT
#
# Looks every five seconds until it happens; on an on-demand instance it never does. A second one at a time ends at once.
set -uo pipefail
head=$1 metadata=${UBT_METADATA:-http://169.254.169.254/latest}

exec 9>"${TMPDIR:-/tmp}/ubt-spot-notice.lock"
flock --nonblock 9 || exit 0

while true; do
	token=$(curl --silent --fail --max-time 2 --request PUT \
		--header 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$metadata/api/token") &&
		curl --silent --fail --max-time 2 --output /dev/null \
			--header "X-aws-ec2-metadata-token: $token" "$metadata/meta-data/spot/instance-action" &&
		break
	sleep "${UBT_METADATA_SECONDS:-5}"
done
exec ray drain-node --address "$head" --reason DRAIN_NODE_REASON_PREEMPTION \
	--reason-message 'AWS takes this spot instance away' --deadline-remaining-seconds 110
