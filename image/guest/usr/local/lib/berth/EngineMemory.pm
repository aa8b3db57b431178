package EngineMemory;
# Finds and replaces values in the memory of the running dockerd (ADR 2). Go moves nothing in its heap, so an address stays
# valid as long as the process.
use strict;
use warnings;
use Exporter qw(import);
use Fcntl qw(O_RDONLY O_RDWR);
our @EXPORT_OK = qw(control_group_of find_in_memory read_memory replace_in_memory set_frozen);

# In bytes.
my $chunk_size = 1048576;

# The folder of a process's control group.
sub control_group_of {
    my ($pid) = @_;
    open(my $groups, '<', "/proc/$pid/cgroup") or die "/proc/$pid/cgroup: $!\n";
    my ($path) = map { /^0::(.+)$/ ? $1 : () } <$groups>;
    die "the engine's control group was not found\n" unless defined $path;
    return "/sys/fs/cgroup$path";
}

# Stops the processes of a control group, and returns when they have stopped; or continues them.
sub set_frozen {
    my ($cgroup, $frozen) = @_;
    open(my $switch, '>', "$cgroup/cgroup.freeze") or die "$cgroup/cgroup.freeze: $!\n";
    print $switch $frozen ? '1' : '0';
    close $switch or die "$cgroup/cgroup.freeze: $!\n";
    return unless $frozen;
    for (1 .. 500) {
        open(my $events, '<', "$cgroup/cgroup.events") or die "$cgroup/cgroup.events: $!\n";
        return if grep { /^frozen 1$/ } <$events>;
        select undef, undef, undef, 0.01;
    }
    die "the engine did not freeze in time\n";
}

# Addresses at which the text is in the writable memory of a process.
sub find_in_memory {
    my ($pid, $text) = @_;
    my @found;
    open(my $maps, '<', "/proc/$pid/maps") or die "maps of $pid: $!\n";
    sysopen(my $memory, "/proc/$pid/mem", O_RDONLY) or die "memory of $pid: $!\n";
    while (my $line = <$maps>) {
        my ($start, $end) = $line =~ /^([0-9a-f]+)-([0-9a-f]+) rw/ or next;
        no warnings 'portable';
        ($start, $end) = (hex $start, hex $end);
        my $at = $start;
        my $kept = '';
        while ($at < $end) {
            sysseek($memory, $at, 0) or last;
            my $count = sysread($memory, my $chunk, $end - $at < $chunk_size ? $end - $at : $chunk_size);
            last unless $count;
            my $window = $kept . $chunk;
            my $base = $at - length $kept;
            my $position = -1;
            push @found, $base + $position while ($position = index($window, $text, $position + 1)) >= 0;
            $at += $count;
            # A match may span two chunks.
            $kept = substr($window, -(length($text) - 1));
        }
    }
    return @found;
}

# Undefined if not all of these bytes are mapped.
sub read_memory {
    my ($pid, $address, $length) = @_;
    sysopen(my $memory, "/proc/$pid/mem", O_RDONLY) or die "memory of $pid: $!\n";
    my $count = sysseek($memory, $address, 0) ? sysread($memory, my $found, $length) : 0;
    return ($count // 0) == $length ? $found : undef;
}

# Replaces a value by another of the same length. A place that has the new value already was replaced by an interrupted attempt.
sub replace_in_memory {
    my ($pid, $address, $old, $new, $what) = @_;
    die "$what has an unexpected length\n" unless length $old == length $new;
    my $found = read_memory($pid, $address, length $old) // '';
    return if $found eq $new;
    die "$what is not at its recorded address\n" unless $found eq $old;
    sysopen(my $memory, "/proc/$pid/mem", O_RDWR) or die "memory of $pid: $!\n";
    sysseek($memory, $address, 0) && (syswrite($memory, $new) // 0) == length $new or die "the engine's memory: $!\n";
}

1;
