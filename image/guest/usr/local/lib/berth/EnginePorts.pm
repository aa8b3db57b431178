package EnginePorts;
# The ports of which dockerd picks one if a container publishes a port without naming one of the host. dockerd reads them
# once, when it starts, from /proc/sys/net/ipv4/ip_local_port_range, over which initrd/init mounts $file. Later they are
# replaced in its memory (ADR 26).
use strict;
use warnings;
use EngineMemory qw(find_in_memory read_memory replace_in_memory);

# FIRST and LAST in one line, separated by a tab; empty until the worker has told them. Written in place, as it is mounted.
our $file = '/run/berth/published-ports';
# The range of an engine whose host publishes no ports, a template's too: easily found in memory, and no host's, because
# published ports are 1024 or more (BERTH_PUBLISHED_PORTS).
my @no_ports = (709, 887);

# The range as two numbers, from the text FIRST-LAST, from one port, or from an empty text.
sub parse {
    my ($text) = @_;
    return @no_ports if $text eq '';
    my ($first, $last) = $text =~ /^([1-9]\d{3,4})(?:-([1-9]\d{3,4}))?$/ or die "the published ports are invalid\n";
    $last //= $first;
    die "the published ports are invalid\n" unless 1024 <= $first && $first <= $last && $last <= 65535;
    return ($first, $last);
}

# The range in the file; an empty list if there is none so far.
sub recorded {
    open(my $handle, '<', $file) or die "$file: $!\n";
    my @range = split ' ', <$handle> // '';
    return @range == 2 ? @range : ();
}

sub record {
    my (@range) = @_;
    open(my $handle, '>', $file) or die "$file: $!\n";
    print $handle join("\t", @range), "\n";
    close $handle or die "$file: $!\n";
}

# The places of the range in a stopped engine, as KIND:ADDRESS. In libnetwork/portallocator these are, in 64-bit words:
#   PortAllocator: …, pointer to a map, begin, end     the one from which others are made
#   portRange: begin, end, last                        one for each protocol and address that containers published at
# Other finds are remains on stacks.
sub find {
    my ($pid, @range) = @_;
    my @places;
    for my $address (grep { $_ % 8 == 0 } find_in_memory($pid, pack 'Q2', @range)) {
        my $last = unpack 'Q', read_memory($pid, $address + 16, 8) // '';
        my $pointer = unpack 'Q', read_memory($pid, $address - 8, 8) // '';
        if (defined $last && $last >= $range[0] && $last <= $range[1]) {
            push @places, "range:$address";
        } elsif (defined $pointer && $pointer >> 32 == 0xc0) {
            # Go's heap begins at 0xc000000000.
            push @places, "allocator:$address";
        }
    }
    my $count = grep { /^allocator/ } @places;
    die "the engine's port allocator was found at $count places instead of one\n" unless $count == 1;
    # The allocator last: without it, an interrupted replacement is found again.
    return sort { $b cmp $a } @places;
}

# Lets a stopped engine pick from another range, beginning with its first port.
sub replace {
    my ($pid, $old, $new, @places) = @_;
    for my $place (@places) {
        my ($kind, $address) = split /:/, $place;
        replace_in_memory($pid, $address, pack('Q2', @$old), pack('Q2', @$new), "the engine's port range");
        next if $kind eq 'allocator';
        my $last = read_memory($pid, $address + 16, 8) // '';
        replace_in_memory($pid, $address + 16, $last, pack('Q', $new->[1]), "the engine's last port");
    }
}

1;
