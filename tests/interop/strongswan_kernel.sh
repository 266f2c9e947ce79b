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

# swan CHILD-LINES [CONNECTION-LINES [CHILDREN]]: charon in b, which knows our key
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
    payloads {
      path = $SW/payloads
      default = -1
      enc = 3
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
${3:-}
    }
  }
}
S
  export STRONGSWAN_CONF=$SW/strongswan.conf SWANCTL_DIR=$SW/swanctl
  ip netns exec b /usr/lib/ipsec/charon >$SW/stdout 2>&1 & CHARON=$!
  for i in $(seq 150); do [ -S $SW/vici ] && sw --stats >/dev/null 2>&1 && break; sleep 0.2; done
  sw --load-all --noprompt >$SW/loaded 2>&1 || fail start "strongSwan: $(cat $SW/stdout $SW/loaded)"
}

# says STORY WHEN WHAT [CHILDREN]: strongSwan has one child, or so many, and says this of each
says() {
  for i in $(seq 50); do
    S=$(sw --list-sas)
    [ "$(grep -c INSTALLED <<<"$S") $(grep -c "INSTALLED, $3" <<<"$S")" = "${4:-1} ${4:-1}" ] && return 0
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
  ip netns exec a ping -n -i 0.2 ${1:-$IPB} >$DIR/ping-a & FLOW="$FLOW $!"
  ip netns exec b ping -n -i 0.2 ${2:-$IPA} >$DIR/ping-b & FLOW="$FLOW $!"
}

# still STORY WHEN [LATE]: all of them were answered; so many of the last may be on their way
still() {
  sleep 1; kill -INT $FLOW; wait $FLOW
  for n in a b; do
    python3 - $DIR/ping-$n ${3:-1} <<'P' || fail "$1" "$2: loss: $(tail -3 $DIR/ping-$n)"
import re, sys
text = open(sys.argv[1]).read()
seen = [int(n) for n in re.findall(r'icmp_seq=(\d+) ttl', text)]
sent = int(re.search(r'(\d+) packets transmitted', text).group(1))
sys.exit(not (len(seen) > 5 and set(seen) >= set(range(1, sent + 1 - int(sys.argv[2])))))
P
  done
}

REQUEST="parsed CREATE_CHILD_SA request .* N(REKEY_SA)" RESPONSE="parsed CREATE_CHILD_SA response"

# caller STORY WHO CHILDREN: our list of peers says the same as strongSwan's
caller() {
  "$OE" peers --json --config $DIR/oe-node.toml | python3 -c "
import json,sys
[p] = json.load(sys.stdin)['peers']
sys.exit(not (p['called_by'] == '$2' and p['pairs'] == $3 and p['gateway'] == '$IPB'))" ||
    fail "$1" "called by $2: $("$OE" peers --json --config $DIR/oe-node.toml)"
}

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
child-life = 12"
  capture; at "$1: we call"
  ip netns exec a ping -n -c 1 -W 60 $IPB >/dev/null || fail "$1" "we call: the first packet is not answered"
  mode "$5" || fail "$1" "we call: not up, or in another mode"
  called "$1" a "0 0"; caller "$1" us 1
  kernel "$1" "we call" "$5"; says "$1" "we call" "$6, ESP:"
  [ "$3 $4" = "$5 $5" ] && rekeyed "$@"
  sw --terminate --ike c >/dev/null
  BEFORE=$(calls)
  at "$1: strongSwan calls"
  sw --initiate --child c >/dev/null || fail "$1" "strongSwan calls: in vain"
  mode "$5" || fail "$1" "strongSwan calls: not up, or in another mode"
  called "$1" b "$BEFORE"; caller "$1" them 1
  kernel "$1" "strongSwan calls" "$5"; says "$1" "strongSwan calls" "$6, ESP:"; both "$1" "strongSwan calls"
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
  still "$1" rekeyed
  kernel "$1" rekeyed "$5"; says "$1" rekeyed "$6, ESP:"; mode "$5" || fail "$1" "rekeyed: not up, or in another mode"
}

# answered STORY FROM TO: strongSwan's kernel wants SAs for this; packets are lost until it has them
answered() {
  at "$1: a packet"
  for i in $(seq 20); do ip netns exec b ping -n -c 1 -W 3 -I $2 $3 >/dev/null && return 0; done
  fail "$1" "$2 has no answer from $3"
}

# streamed STORY FROM TO PORT: the same for TCP, which repeats its first packet by itself
streamed() {
  at "$1: a stream"
  ip netns exec a timeout 60 nc -l -N $4 >$DIR/came <<<"and back" & NC=$!
  for i in $(seq 100); do ip netns exec a ss -Hltn | grep -q ":$4 " && break; sleep 0.1; done
  B=$(ip netns exec b timeout 60 nc -N -s $2 $3 $4 <<<"there"); wait $NC
  [ "$(cat $DIR/came) $B" = "there and back" ] || fail "$1" "stream: $(cat $DIR/came) $B"
}

# wanted STORY EXCHANGE PROTOCOLS: what strongSwan has asked for last, in this exchange, were
# selectors of these protocols (0: all): TSi, and TSr, the packet's own before the wide ones (RFC
# 7296 §2.9)
wanted() {
  W=$(python3 - $SW/payloads <<'P'
import re, sys
asked = exchange = []
sort = rule = ""
for line in open(sys.argv[1]):
    if m := re.search(r"generating (\w+) request \d+ \[.* TSi TSr", line):
        exchange = asked = [m.group(1)]
    elif re.search(r"generating \w+ re\w+ \d+ \[", line):
        exchange = []
    elif m := re.search(r"generating payload of type (\w+)", line):
        sort = m.group(1)
    elif m := re.search(r"generating rule (\d+) ", line):
        rule = m.group(1)
    elif (m := re.search(r"=> (\d+)$", line)) and (sort, rule) == ("TRAFFIC_SELECTOR_SUBSTRUCTURE", "1"):
        exchange.append(m.group(1))
print(*asked)
P
)
  [ "$W" = "$2 $3" ] || fail "$1" "strongSwan asked for $W, not $2 $3"
}

TRAP="start_action = trap"

asked() { # strongSwan's kernel calls, in transport mode; we know it from DNS alone
  swan "mode = transport
$TRAP"
  node auto
  capture
  answered asked $IPB $IPA
  wanted asked IKE_AUTH "1 0 1 0"
  keyed dnssec b || fail asked "not keyed"
  called asked b "0 0"; caller asked them 1
  kernel asked "strongSwan calls" transport; says asked "strongSwan calls" "TRANSPORT, ESP:"; both asked "strongSwan calls"
  sw --terminate --ike c >/dev/null
  streamed asked $IPB $IPA 7001
  wanted asked IKE_AUTH "6 0 6 0"
  called asked b "0 1"
  clean asked; protected asked esp; stop; say "asked: ok"
}

ports() { # the same for single protocols and ports, each with a child of its own
  swan "mode = transport
local_ts = dynamic[tcp]
remote_ts = dynamic[tcp/7001]
$TRAP" "" "d {
mode = transport
local_ts = dynamic[icmp]
remote_ts = dynamic[icmp]
$TRAP
}"
  node auto
  capture
  answered ports $IPB $IPA
  streamed ports $IPB $IPA 7001
  wanted ports CREATE_CHILD_SA "6 6 6 6"
  says ports "strongSwan calls" "TRANSPORT, ESP:" 2
  caller ports them 2
  of "sorted((d['protocol'], d['source_port'], d['state'], d['mode']) for d in s['destinations']) == [(1, 0, 'keyed', 'transport'), (6, 7001, 'keyed', 'transport')]" || fail ports "$(status)"
  answered ports $IPB $IPA
  clean ports; protected ports esp; stop; say "ports: ok"
}

encapsulated() { # what looks like a NAT to us makes it tunnel mode
  swan "mode = transport
$TRAP" "encap = yes"
  node auto
  capture
  answered encapsulated $IPB $IPA
  keyed dnssec b || fail encapsulated "not keyed"
  called encapsulated b "0 0"
  says encapsulated "strongSwan calls" "TUNNEL-in-UDP, ESP:"; both encapsulated "strongSwan calls"
  clean encapsulated; protected encapsulated udp; stop; say "encapsulated: ok"
}

# inner: networks behind both
inner() {
  ip -n a addr replace 10.1.0.1/24 dev lo
  for net in 2 3; do ip -n b addr replace 10.$net.0.1/24 dev lo; done
}

children() { # each of the peer's networks has a child of its own, and all of them stay
  inner
  swan "local_ts = 10.2.0.0/24
remote_ts = 10.1.0.0/24
$TRAP" "" "d {
local_ts = 10.3.0.0/24
remote_ts = 10.1.0.0/24
$TRAP
}"
  node auto "[[connection]]
name = \"net\"
gateway = \"$IPB\"
remote-key = \"$KEYS/peer.pub\"
local-subnets = [\"10.1.0.0/16\"]
remote-subnets = [\"10.2.0.0/16\", \"10.3.0.0/16\"]
start = \"accept\""
  capture
  answered children 10.2.0.1 10.1.0.1
  answered children 10.3.0.1 10.1.0.1
  wanted children CREATE_CHILD_SA "1 0 1 0"
  flow 10.3.0.1 "-I 10.2.0.1 10.1.0.1"
  # A pair that is given up goes after some seconds.
  sleep 12
  still children "two children"
  says children "two children" "TUNNEL, ESP:" 2; caller children them 2
  [ "$(times "closing CHILD_SA")" = 0 ] || fail children "a child was closed"
  called children b "0 0"
  clean children; protected children esp; stop; say "children: ok"
}

subnets() { # networks behind both, extended sequence numbers, and both sides rekey at once
  inner
  swan "local_ts = 10.2.0.0/24, 10.3.0.0/24
remote_ts = 10.1.0.0/24
esp_proposals = aes256gcm16-esn
$TRAP"
  node auto "[[connection]]
name = \"net\"
gateway = \"$IPB\"
remote-key = \"$KEYS/peer.pub\"
local-subnets = [\"10.1.0.0/16\"]
remote-subnets = [\"10.2.0.0/16\", \"10.3.0.0/16\"]
start = \"accept\"
[ike]
child-life = 20"
  capture
  answered subnets 10.2.0.1 10.1.0.1
  wanted subnets IKE_AUTH "1 0 0 1 0"
  mode tunnel || fail subnets "not up"
  called subnets b "0 0"
  says subnets "strongSwan calls" "TUNNEL, ESP:AES_GCM_16-256/ESN"
  flow 10.2.0.1 "-I 10.3.0.1 10.1.0.1"
  collide subnets
  # The last three seconds are under way, and would be lost with the delay.
  still subnets "both rekey" 20
  ip netns exec s tc qdisc del dev pb root
  mode tunnel || fail subnets "both rekey: not one pair"
  says subnets "both rekey" "TUNNEL, ESP:AES_GCM_16-256/ESN"
  sw --terminate --child c >/dev/null
  streamed subnets 10.3.0.1 10.1.0.1 7001
  wanted subnets IKE_AUTH "6 0 0 6 0"
  clean subnets; protected subnets esp; stop; say "subnets: ok"
}

COLLISION="CHILD_SA rekey collision \(won\|lost\)"

# collide STORY: what we say takes long to arrive; while our request to rekey is under way
# strongSwan makes its own
collide() {
  ip netns exec s tc qdisc add dev pb root netem delay 2500ms limit 10000 || fail "$1" "no delay"
  for try in 1 2 3; do
    at "$1: we rekey"
    ip netns exec s timeout 60 tcpdump -ni pa -c 1 "src host $IPA and udp port 4500 and udp[8:4] = 0" >/dev/null 2>&1
    at "$1: strongSwan rekeys"
    sw --rekey --child c >/dev/null
    sleep 8
    [ "$(times "$COLLISION")" -gt 0 ] && break
  done
  [ "$(times "$COLLISION")" -gt 0 ] || fail "$1" "no collision"
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
