#!/bin/bash
# Guest side of the tests with strongSwan and its kernel's ESP: charon in b.
# usage: strongswan_kernel.sh RIG PLACE STORY...
set -u
RIG=$1 OE=$2/oe-node KEYS=$2; shift 2
. "$KEYS/guest.sh"
SW=/tmp/swan LOG=/tmp/swan/log

sw() { swanctl "$@" --uri unix://$SW/vici; }
once() { ip netns exec a ping -n -c 1 -W 10 $IPB >/dev/null 2>&1; }
peer_stop() { kill $CHARON 2>/dev/null; wait $CHARON 2>/dev/null; }

# swan CHILD-LINES [CONNECTION-LINES]: charon in b, which knows our key
swan() {
  rm -rf $SW; mkdir -p $SW/swanctl/private
  install -m600 "$KEYS/peer.key" $SW/swanctl/private/peer.key
  cat >$SW/strongswan.conf <<S
charon {
  load = random nonce pem pkcs1 pkcs8 pubkey openssl sha1 sha2 hmac gcm kdf drbg mgf1 kernel-netlink socket-default vici updown
  filelog {
    log {
      path = $LOG
      time_format = %H:%M:%S
      time_add_ms = yes
      flush_line = yes
      default = 1
      cfg = 2
      chd = 2
      knl = 2
    }
  }
  syslog {
  }
  plugins {
    vici {
      socket = unix://$SW/vici
    }
  }
}
swanctl {
  load = pem pkcs1 pkcs8 pubkey openssl random
}
S
  cat >$SW/swanctl/swanctl.conf <<S
connections {
  c {
    version = 2
    local_addrs = $IPB
    remote_addrs = $IPA
${2:-}
    local {
      auth = pubkey
      id = $IPB
      pubkeys = $KEYS/peer.pub
    }
    remote {
      auth = pubkey
      id = $IPA
      pubkeys = $KEYS/host.pub
    }
    children {
      c {
$1
      }
    }
  }
}
S
  export STRONGSWAN_CONF=$SW/strongswan.conf SWANCTL_DIR=$SW/swanctl
  ip netns exec b /usr/lib/ipsec/charon >$SW/stdout 2>&1 & CHARON=$!
  for i in $(seq 150); do [ -S $SW/vici ] && sw --stats >/dev/null 2>&1 && break; sleep 0.2; done
  sw --load-all --noprompt >$SW/loaded 2>&1 || fail start "strongSwan: $(cat $SW/stdout $SW/loaded)"
}

# says STORY WHEN WHAT: strongSwan has one child, and says this of it
says() {
  for i in $(seq 50); do
    S=$(sw --list-sas)
    [ "$(grep -c INSTALLED <<<"$S")" = 1 ] && grep -q "INSTALLED, $3, ESP:" <<<"$S" && return 0
    sleep 0.3
  done
  fail "$1" "$2: not $3: $S"
}

times() { grep -c -- "$1" $LOG; }

# logged STORY WHEN WORDS [TIMES]: waits until strongSwan's log has this more than so often
logged() {
  for i in $(seq 200); do
    [ "$(times "$3")" -gt "${4:-0}" ] && return 0
    sleep 0.3
  done
  fail "$1" "$2: strongSwan does not say: $3"
}

# packets go to and fro, without an end
flow() {
  FLOW=
  ip netns exec a ping -n -i 0.2 $IPB >$DIR/ping-a & FLOW="$FLOW $!"
  ip netns exec b ping -n -i 0.2 $IPA >$DIR/ping-b & FLOW="$FLOW $!"
}

# still STORY WHEN: all of them were answered; the last of all may be on its way
still() {
  sleep 1; kill -INT $FLOW; wait $FLOW
  for n in a b; do
    python3 - $DIR/ping-$n <<'P' || fail "$1" "$2: loss: $(tail -3 $DIR/ping-$n)"
import re, sys
text = open(sys.argv[1]).read()
seen = [int(n) for n in re.findall(r'icmp_seq=(\d+) ttl', text)]
sent = int(re.search(r'(\d+) packets transmitted', text).group(1))
sys.exit(not (len(seen) > 5 and set(seen) >= set(range(1, sent))))
P
  done
}

REQUEST="parsed CREATE_CHILD_SA request .* N(REKEY_SA)" RESPONSE="parsed CREATE_CHILD_SA response"

# host STORY ENCAPSULATION OURS THEIRS MODE SAYS WIRE: between the two addresses alone; ours and
# strongSwan's side ask for these modes, and what comes of it is the next
host() {
  swan "mode = $4"
  node "$2" "[[connection]]
name = \"host\"
gateway = \"$IPB\"
remote-key = \"$KEYS/peer.pub\"
local-subnets = [\"$IPA\"]
remote-subnets = [\"$IPB\"]
mode = \"$3\"
[ike]
child-life = 20"
  capture; at "$1: we call"
  ip netns exec a ping -n -c 1 -W 60 $IPB >/dev/null || fail "$1" "we call: the first packet is not answered"
  mode "$5" || fail "$1" "we call: not up, or in another mode"
  called "$1" a "0 0"
  kernel "$1" "we call" "$5"; says "$1" "we call" "$6"
  [ "$3 $4" = "$5 $5" ] && rekeyed "$@"
  sw --terminate --ike c >/dev/null
  BEFORE=$(calls)
  at "$1: strongSwan calls"
  sw --initiate --child c >/dev/null || fail "$1" "strongSwan calls: in vain"
  mode "$5" || fail "$1" "strongSwan calls: not up, or in another mode"
  called "$1" b "$BEFORE"
  kernel "$1" "strongSwan calls" "$5"; says "$1" "strongSwan calls" "$6"; both "$1" "strongSwan calls"
  clean "$1"; protected "$1" "$7"; stop; say "$1: ok"
}

# rekeyed STORY - - - MODE SAYS: packets flow while either side replaces the child
rekeyed() {
  flow
  at "$1: strongSwan rekeys"
  N=$(times "$RESPONSE"); sw --rekey --child c >/dev/null
  logged "$1" "strongSwan rekeys" "$RESPONSE" $N
  at "$1: we rekey"
  N=$(times "$REQUEST"); logged "$1" "we rekey" "$REQUEST" $N
  at "$1: rekeyed"
  still "$1" rekeyed
  kernel "$1" rekeyed "$5"; says "$1" rekeyed "$6"; mode "$5" || fail "$1" "rekeyed: not up, or in another mode"
}

# acquired STORY WHAT WHICH: strongSwan's kernel wanted this, in whose log it is the first selector
# of its own before the wide one
acquired() {
  grep -q "acquire" $LOG; grep -n "acquire\|proposing traffic\|  $IPB\|  10\." $LOG | tail -20
}

asked() { # strongSwan's kernel calls for a packet, in transport mode; we know it from DNS alone
  swan "mode = transport
start_action = trap"
  node auto
  capture; at "asked: ping"
  ip netns exec b ping -n -i 0.5 -c 20 $IPA
  keyed dnssec b || fail asked "not keyed"
  called asked b "0 0"
  acquired
  "$OE" peers --config $DIR/oe-node.toml
  status | head -60
  kernel asked "strongSwan calls" transport; says asked "strongSwan calls" TRANSPORT; both asked "strongSwan calls"
  sw --list-sas; sw --terminate --child c; at "asked: stream"
  ip netns exec a nc -l -N 7001 >$DIR/came </dev/null & NC=$!
  echo hello | ip netns exec b timeout 60 nc -N $IPA 7001; wait $NC; cat $DIR/came
  acquired; sw --list-sas
  clean asked; protected asked esp; stop; say "asked: ok"
}

network
PEERKEY=$(cat "$KEYS/peer.ipseckey")
zone "${IPB##*.} IN IPSECKEY $PEERKEY" "${IPA##*.} IN IPSECKEY $OEKEY"
for story in "$@"; do
  at "$story"
  case $story in
  transport) host transport auto transport transport transport TRANSPORT esp ;;
  transport-udp) host transport-udp udp transport transport transport TRANSPORT-in-UDP udp ;;
  they-decline) host they-decline auto transport tunnel tunnel TUNNEL esp ;;
  we-decline) host we-decline auto tunnel transport tunnel TUNNEL esp ;;
  *) $story ;;
  esac
done
