#!/bin/sh
# Make the secrets of compose.yaml in deploy/secrets, once: what is there stays. The folder is for its owner alone; its
# files are readable, because containers read them as users of their own.
set -eu
umask 077
folder=${SECRETS:-$(dirname "$0")/secrets}
mkdir -p "$folder"

secret() {
    [ -e "$folder/$1" ] || printf '%s' "$2" >"$folder/$1"
}

random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

for name in postgres prefect mlflow optuna; do
    secret "${name}_password" "$(random)"
done
secret prefect_api_key "team:$(random)"
secret signing_key "$(random)"
# Of a private repository: a line https://USER:TOKEN@HOST for each host, as git's own credential store has them.
secret git_credentials ""
if [ ! -e "$folder/s3_credentials" ]; then
    key=$(random)
    secret s3_credentials "[default]
aws_access_key_id = vit-vs-cnn
aws_secret_access_key = $key
"
    secret s3_identities "{\"identities\": [{\"name\": \"vit-vs-cnn\", \"actions\": [\"Admin\", \"Read\", \"List\", \"Tagging\", \"Write\"],
  \"credentials\": [{\"accessKey\": \"vit-vs-cnn\", \"secretKey\": \"$key\"}]}]}
"
fi
chmod 644 "$folder"/*
