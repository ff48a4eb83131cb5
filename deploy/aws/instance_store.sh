#!/usr/bin/env bash
# Make the folder that holds decoded images and data, on the fastest disk that an instance has, and print where it is.
#
#   deploy/aws/instance_store.sh LINK
#
# LINK, the same path on all nodes, leads to the instance's own NVMe where there is one, else to a folder on the root
# disk. The NVMe is lost when the instance ends: nothing lies on it that cannot be made again. Running it twice changes
# nothing. To be run as a user who may use sudo.
set -euo pipefail
link=$1

# AWS's deep-learning images mount the instance store here by themselves; others leave it bare.
mounted=/opt/dlami/nvme
if ! mountpoint --quiet "$mounted"; then
	# The model names what it is: "Amazon EC2 NVMe Instance Storage"; EBS volumes are NVMe devices, too.
	disk=$(lsblk --noheadings --nodeps --paths --output NAME,MODEL | awk '/Instance Storage/ {print $1; exit}')
	if [[ -n $disk ]]; then
		mounted=/mnt/instance-store
		if ! mountpoint --quiet "$mounted"; then
			sudo mkfs.ext4 -q -F -m 0 "$disk"
			sudo mkdir -p "$mounted"
			sudo mount -o noatime "$disk" "$mounted"
		fi
	else
		mounted=/var/lib
	fi
fi

sudo mkdir -p "$mounted/ubt/cache" "$mounted/ubt/data"
sudo chown "$(id -u):$(id -g)" "$mounted/ubt" "$mounted/ubt/cache" "$mounted/ubt/data"
sudo ln -sfn "$mounted/ubt" "$link"
echo "$mounted/ubt"
