#!/bin/sh
# Gets the small files out of a cloud directory with nothing but age, zstd and GNU tar.
# Usage: extract.sh CLOUD_DIR IDENTITY_FILE OUT_DIR
# Later snapshots overwrite earlier ones. Parts of large files, renames and deletions lie under
# OUT_DIR/.tier; for those use `tier restore`.
set -eu
cloud=$1 identity=$2 out=$3
mkdir -p "$out"
find "$cloud" -name '*.tar.zst.age' -o -name '*.tar.zst' | LC_ALL=C sort | while read -r tarball; do
    case $tarball in
        *.age) age -d -i "$identity" "$tarball" ;;
        *) cat "$tarball" ;;
    esac | zstd -dc | tar -xf - -C "$out" --xattrs --xattrs-include='*'
done
