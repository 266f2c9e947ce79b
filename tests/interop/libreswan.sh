#!/bin/bash
# Guest side of the libreswan tests: oe-node in namespace a, libreswan in b, and in d the name
# server of their signed reverse zone, all behind a switch s.
# usage: libreswan.sh RIG OE_NODE KEYS STORY...
set -u
RIG=$1 OE=$2 KEYS=$3; shift 3
. "$RIG/lsw-lib.sh"
IPD=192.1.2.254 ZONE=2.1.192.in-addr.arpa DIR=/tmp/oe
mkdir -p $DIR /etc/dns

say() { echo "STORY $*"; }
fail() { say "$1: FAILED: $2"; tail -n 60 $DIR/log /tmp/pluto-b.log 2>/dev/null | cut -c1-300; cat $DIR/wire 2>/dev/null | tail -20; exit 1; }

network() {
  for m in bridge tun; do modprobe $m 2>/dev/null; done
  nets
  for n in s d; do ip netns add $n; ip -n $n link set lo up; done
  ip -n a link del va; ip -n s link add br0 type bridge; ip -n s link set br0 up
  for n in a b d; do
    ip link add v$n netns $n type veth peer name p$n netns s
    ip -n s link set p$n master br0 up
  done
  ip -n a addr add $IPA/24 dev va; ip -n b addr add $IPB/24 dev vb; ip -n d addr add $IPD/24 dev vd
  for n in a b d; do ip -n $n link set v$n up; done
  for n in a b; do
    ip -n $n route replace default via $IPD
    ip netns exec $n sysctl -qw net.ipv4.conf.v$n.send_redirects=0
    mkdir -p /etc/netns/$n; echo "nameserver $IPD" >/etc/netns/$n/resolv.conf
  done
  # The first SA of all has the kernel look for modules, which takes seconds here.
  ip -n b xfrm state add src 10.0.0.1 dst 10.0.0.2 proto esp spi 256 mode transport \
    aead "rfc4106(gcm(aes))" 0x$(printf '%072d' 1) 128 && ip -n b xfrm state flush
}

# zone RECORD...: signs and serves the reverse zone with these records
zone() {
  cd /etc/dns
  { echo "\$ORIGIN $ZONE."; echo "\$TTL 300"
    echo "@ IN SOA ns.$ZONE. root.$ZONE. 1 3600 600 86400 300"; echo "@ IN NS ns.$ZONE."; echo "ns IN A $IPD"
    printf '%s\n' "$@"; } >zone
  [ -s anchor.key ] || { K=$(ldns-keygen -r /dev/urandom -a ECDSAP256SHA256 -k $ZONE); cp $K.key anchor.key; echo $K >key; }
  ldns-signzone -o $ZONE -f zone.signed zone "$(cat key)" || exit 9
  cat >unbound.conf <<U
server:
	interface: $IPD
	access-control: 0.0.0.0/0 allow
	chroot: ""
	username: ""
	directory: "/etc/dns"
	pidfile: /run/unbound.pid
	logfile: /tmp/unbound.log
	use-syslog: no
	module-config: "validator iterator"
	trust-anchor-file: /etc/dns/anchor.key
	local-zone: "$ZONE" nodefault
remote-control:
	control-enable: no
auth-zone:
	name: "$ZONE"
	zonefile: /etc/dns/zone.signed
	for-upstream: yes
	for-downstream: no
	fallback-enabled: no
U
  [ -s /run/unbound.pid ] && { kill "$(cat /run/unbound.pid)"; sleep 1; }
  ip netns exec d unbound -c /etc/dns/unbound.conf || exit 8
}

# node ENCAPSULATION [LINES FOR POLICY]: oe-node in a
node() {
  # Whom it remembers it would call at once.
  rm -rf $DIR/state
  cat >$DIR/oe-node.toml <<T
[node]
key = "$DIR/host.key"
state-dir = "$DIR/state"
control-socket = "$DIR/control.sock"
encapsulation = "$1"
[dns]
resolvers = ["$IPD"]
trust-anchors = "/etc/dns/anchor.key"
[policy]
${2:-}
T
  RUST_LOG=debug ip netns exec a "$OE" run --config $DIR/oe-node.toml >$DIR/log 2>&1 &
  NODE=$!
  for i in $(seq 150); do
    "$OE" status --config $DIR/oe-node.toml >/dev/null 2>&1 && return 0
    sleep 0.2
  done
  fail start "oe-node does not answer"
}

status() { "$OE" status --json --config $DIR/oe-node.toml; }

# how often we have called, and have been called with success
calls() {
  status | python3 -c "
import json,sys
c = json.load(sys.stdin)['counters']['keying']
print(c['calls'], c['visitors_accepted'])"
}

# called STORY CALLER BEFORE: since those counts only this side has called
called() {
  set -- "$1" "$2" $3 $(calls)
  case $2 in
  a) [ "$5" -gt "$3" ] && [ "$6" -eq "$4" ] ;;
  b) [ "$5" -eq "$3" ] && [ "$6" -gt "$4" ] ;;
  esac || fail "$1" "$2 was to call; calls and visits before: $3 $4, after: $5 $6"
}

# once a: one packet of that side's, which calls
once() {
  case $1 in
  a) ip netns exec a ping -n -c 1 -W 10 $IPB ;;
  b) ip netns exec b ping -n -c 1 -W 10 $IPA ;;
  tun) whack b --name tun --initiate ;;
  esac >/dev/null 2>&1
}

# keyed TRUST WHO: waits until libreswan's address is encrypted to. An emulated libreswan on a busy
# machine may take longer to answer than a call lasts: then it calls again.
keyed() {
  for i in $(seq 25); do
    S=$(status)
    echo "$S" | python3 -c "
import json,sys
for d in json.load(sys.stdin)['destinations']:
    if d['destination'] == '$IPB' and d['state'] == 'keyed' and d['trust'] == '$1': sys.exit(0)
    if d['destination'] == '$IPB' and d['state'] in ('clear-text', 'deny'): sys.exit(2)
sys.exit(1)" 2>/dev/null
    case $? in
    0) return 0 ;;
    2) "$OE" forget --config $DIR/oe-node.toml $IPB >/dev/null 2>&1
       once ${2:-a} ;;
    esac
    sleep 0.5
  done
  echo "$S"; return 1
}

capture() { ip netns exec s tcpdump -lni pa "$@" >$DIR/wire 2>/dev/null & DUMP=$!; sleep 0.5; }

stop() {
  kill $DUMP $NODE 2>/dev/null; wait $NODE 2>/dev/null
  whack b --shutdown >/dev/null 2>&1; sleep 1
  ip -n b xfrm state flush; ip -n b xfrm policy flush
  ip -n a xfrm policy flush
}

# swan AUTHBY LINES...: libreswan in b
swan() {
  { printf 'config setup\n\tuniqueids=no\n\tdumpdir=/tmp\n\tdnssec-enable=yes\n\tdnssec-rootkey-file=""\n\tdnssec-anchors=/etc/dns/anchor.key\n'
    printf '%s\n' "$@"; } >/etc/ipsec-b/ipsec.conf
  : >/etc/ipsec-b/ipsec.secrets; rm -f /tmp/pluto-b.log
  pluto b
}

T=$(printf '\t')
opportunistic() { # AUTH LINES
  echo "$IPA/32" >/etc/ipsec-b/policies/private-or-clear; echo "$IPD/32" >/etc/ipsec-b/policies/clear
  swan "conn private-or-clear" "${T}ikev2=insist" "$@" "${T}left=%defaultroute" \
    "${T}right=%opportunisticgroup" "${T}negotiationshunt=hold" "${T}failureshunt=passthrough" \
    "${T}keyingtries=1" "${T}retransmit-timeout=20s" "${T}auto=ondemand" \
    "conn clear" "${T}type=passthrough" "${T}authby=never" "${T}left=%defaultroute" "${T}right=%group" "${T}auto=ondemand"
}

there() { ip netns exec a ping -n -c 8 -i 0.5 -W 4 $IPB; }
back() { ip netns exec b ping -n -c 8 -i 0.5 -W 4 $IPA; }

# protected STORY: nothing between the two went in the clear, and something went as ESP
protected() {
  sleep 0.5
  grep -q "$IPA > $IPB: ICMP\|$IPB > $IPA: ICMP" $DIR/wire && fail "$1" "in the clear"
  grep -qE "ESP\(|UDP-encap" $DIR/wire || fail "$1" "no ESP"
}

configured() { # STORY ENCAPSULATION: both keys written down at libreswan's side, ours asks DNS
  zone "${IPB##*.} IN IPSECKEY $LSWKEY" "${IPA##*.} IN IPSECKEY $OEKEY"
  swan "conn tun" "${T}ikev2=insist" "${T}authby=rsasig" "${T}left=$IPB" "${T}leftrsasigkey=$(cat /etc/ipsec-b/pub)" \
    "${T}right=$IPA" "${T}rightrsasigkey=0s${OEKEY##* }" "${T}auto=add"
  node "$2"
  there >$DIR/ping || true
  keyed dnssec a || fail "$1" "we call: not keyed"
  called "$1" a "0 0"
  capture "host $IPB"
  there | grep -q " 0% packet loss" || fail "$1" "we call: loss"
  whack b --trafficstatus | cut -c1-200
  grep -hoE "authenticated using [A-Za-z0-9 _-]*" /tmp/pluto-b.log | sort | uniq -c
  whack b --name tun --terminate >/dev/null; sleep 2
  BEFORE=$(calls)
  whack b --name tun --initiate | cut -c1-160
  keyed dnssec tun || fail "$1" "libreswan calls: not keyed"
  called "$1" b "$BEFORE"
  back | grep -q " 0% packet loss" || fail "$1" "libreswan calls: loss"
  protected "$1"; stop; say "$1: ok"
}

ipseckey() { # both sides find the other's key in the reverse zone
  zone "${IPB##*.} IN IPSECKEY $LSWKEY" "${IPA##*.} IN IPSECKEY $OEKEY"
  for caller in a b; do
    opportunistic "${T}authby=rsasig" "${T}leftrsasigkey=$(cat /etc/ipsec-b/pub)" "${T}rightrsasigkey=%dnsondemand"
    node auto
    if [ $caller = a ]; then there >$DIR/ping; else back >$DIR/ping; fi
    keyed dnssec $caller || fail ipseckey "$caller calls: not keyed"
    called ipseckey $caller "0 0"
    capture "host $IPB"
    there | grep -q " 0% packet loss" || fail ipseckey "$caller calls: loss"
    back | grep -q " 0% packet loss" || fail ipseckey "$caller calls: loss back"
    whack b --trafficstatus | cut -c1-200
    protected ipseckey; stop
  done
  say "ipseckey: ok"
}

null() { # nobody publishes anything, and both are content with that
  zone "77 IN PTR nobody.test."
  for caller in a b; do
    opportunistic "${T}authby=null" "${T}leftid=%null" "${T}rightid=%null"
    node auto 'null-auth = "call"'
    if [ $caller = a ]; then there >$DIR/ping; else back >$DIR/ping; fi
    keyed anonymous $caller || fail null "$caller calls: not keyed"
    called null $caller "0 0"
    capture "host $IPB"
    there | grep -q " 0% packet loss" || fail null "$caller calls: loss"
    back | grep -q " 0% packet loss" || fail null "$caller calls: loss back"
    whack b --trafficstatus | cut -c1-200
    protected null; stop
  done
  say "null: ok"
}

# mode WANTED [CALL]: waits until our connection is up, in this mode; calls again if an emulated
# libreswan has taken too long to answer
mode() {
  for i in $(seq 30); do
    [ -z "${2:-}" ] || ip netns exec a ping -n -c 1 -W 5 $IPB >/dev/null 2>&1
    S=$(status)
    echo "$S" | python3 -c "
import json,sys
c = json.load(sys.stdin)['connections'][0]
sys.exit(0 if c['state'] == 'up' and c['pairs'] == 1 and c['mode'] == '$1' else 1)" 2>/dev/null && return 0
    sleep 0.5
  done
  echo "$S"; return 1
}

# both STORY WHEN: packets of every size and a stream, both ways
both() {
  for size in 56 0 1400 4000; do
    ip netns exec a ping -n -c 2 -i 0.3 -W 5 -s $size $IPB | grep -q " 0% packet loss" || fail "$1" "$2: $size octets"
    ip netns exec b ping -n -c 2 -i 0.3 -W 5 -s $size $IPA | grep -q " 0% packet loss" || fail "$1" "$2: $size octets back"
  done
  head -c 200000 /dev/urandom >$DIR/sent
  ip netns exec b timeout 30 nc -l -N 7000 >$DIR/came </dev/null & NC=$!
  for i in $(seq 100); do ip netns exec b ss -Hltn | grep -q ":7000 " && break; sleep 0.1; done
  ip netns exec a timeout 30 nc -N $IPB 7000 <$DIR/sent >/dev/null
  wait $NC; cmp -s $DIR/sent $DIR/came || fail "$1" "$2: stream"
}

# kernel STORY WHO MODE: libreswan's kernel has this mode and no other
kernel() {
  [ "$(ip -n b xfrm state | grep -o "mode [a-z]*" | sort -u)" = "mode $3" ] || fail "$1" "$2: $(ip -n b xfrm state)"
}

# host STORY ENCAPSULATION OURS THEIRS MODE: between the two addresses alone; ours and libreswan's
# side ask for these modes, and what comes of it is the last
host() {
  zone "77 IN PTR nobody.test."
  cut -c3- /etc/ipsec-b/pub >$DIR/peer.key
  swan "conn host" "${T}ikev2=insist" "${T}authby=rsasig" "${T}left=$IPB" "${T}leftrsasigkey=$(cat /etc/ipsec-b/pub)" \
    "${T}right=$IPA" "${T}rightrsasigkey=0s${OEKEY##* }" "${T}type=$4" "${T}auto=add"
  node "$2" "[[connection]]
name = \"host\"
gateway = \"$IPB\"
remote-key = \"$DIR/peer.key\"
local-subnets = [\"$IPA\"]
remote-subnets = [\"$IPB\"]
mode = \"$3\""
  capture "host $IPB and host $IPA"
  mode "$5" call || fail "$1" "we call: not up, or in another mode"
  kernel "$1" "we call" "$5"; both "$1" "we call"
  whack b --name host --rekey-ipsec | cut -c1-160; sleep 3
  mode "$5" || fail "$1" "rekeyed: not up, or in another mode"
  kernel "$1" rekeyed "$5"; both "$1" "rekeyed"
  whack b --name host --terminate >/dev/null; sleep 2
  whack b --name host --initiate | cut -c1-160
  mode "$5" || fail "$1" "libreswan calls: not up, or in another mode"
  kernel "$1" "libreswan calls" "$5"; both "$1" "libreswan calls"
  status | python3 -c "
import json,sys
p = json.load(sys.stdin)['counters']['plane']
sys.exit(any(p[n] for n in ('untransportable', 'inner_selector', 'inner_malformed', 'unauthentic')))" || fail "$1" "$(status)"
  protected "$1"
  grep -qE "$IPA\.?[0-9]* > $IPB\.?[0-9]*: (ICMP|Flags)|$IPB\.?[0-9]* > $IPA\.?[0-9]*: (ICMP|Flags)" $DIR/wire && fail "$1" "in the clear"
  stop; say "$1: ok"
}

asked() { # libreswan calls whom it has by configuration, in transport mode; we find it in DNS
  zone "${IPB##*.} IN IPSECKEY $LSWKEY" "${IPA##*.} IN IPSECKEY $OEKEY"
  swan "conn host" "${T}ikev2=insist" "${T}authby=rsasig" "${T}left=$IPB" "${T}leftrsasigkey=$(cat /etc/ipsec-b/pub)" \
    "${T}right=$IPA" "${T}rightrsasigkey=0s${OEKEY##* }" "${T}type=transport" "${T}auto=add"
  node auto
  capture "host $IPB and host $IPA"
  whack b --name host --initiate | cut -c1-160
  keyed dnssec b || fail asked "not keyed"
  called asked b "0 0"
  kernel asked "libreswan calls" transport; both asked "libreswan calls"
  whack b --name host --rekey-ipsec | cut -c1-160; sleep 3
  kernel asked rekeyed transport; both asked rekeyed
  protected asked; stop; say "asked: ok"
}

network
install -m600 "$KEYS/host.key" $DIR/host.key
OEKEY=$(cat "$KEYS/ipseckey")
BITS=2192 keys b
LSWKEY=$(sed -n 's/.*IPSECKEY *\([0-9]* [0-9] [0-9] [^ ]* .*\)/\1/p' /etc/ipsec-b/ipseckey)
for story in "$@"; do
  case $story in
  configured) configured configured auto ;;
  encapsulated) configured encapsulated udp ;;
  transport) host transport auto transport transport transport ;;
  transport-udp) host transport-udp udp transport transport transport ;;
  declined) host declined auto transport tunnel tunnel ;;
  *) $story ;;
  esac
done
